"""Decoding and feature extraction: one decoder, one file per extractor, one tree of errors."""
