"""Stores, indexes, and the replica code that keeps an index in step with a store."""
