"""One file per annotator; each exports its class as ANNOTATOR."""
