"""From bytes to pictures to features: one decoder, one extractor per file, one error tree."""
