"""The store for clusters: a PostgreSQL database, shared by processes of any host."""
