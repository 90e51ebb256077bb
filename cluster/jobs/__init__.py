"""Batch jobs over a collection: backfill, annotate, train, change a model."""
