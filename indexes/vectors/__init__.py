"""Cosine search over unit vectors, exact or by trained inverted lists."""
