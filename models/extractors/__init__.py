"""One file per extractor; each exports its class as EXTRACTOR. The folder listing is the
registry."""
