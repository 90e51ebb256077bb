"""The store for clusters: a PostgreSQL database."""
