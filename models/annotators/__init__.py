"""One annotator a file; each names its class ANNOTATOR."""
