"""Ranking across retrievers: one list of the hits of several."""
