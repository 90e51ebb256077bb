"""Exact Hamming search over binary codes."""
