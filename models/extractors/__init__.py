"""One extractor per file; each names its class `EXTRACTOR`. The folder listing is the registry."""
