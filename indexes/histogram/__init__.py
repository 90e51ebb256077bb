"""Exact L1 search over colour histograms."""
