"""The embedded store: one LMDB environment on one host."""
