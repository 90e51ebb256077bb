"""Stores, indexes, and the replica machinery that keeps an index in step with a store."""
