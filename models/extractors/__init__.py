"""One file per extractor, which exports its class as EXTRACTOR; the listing is the registry."""
