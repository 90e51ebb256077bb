"""The store contract and what every store shares; one folder, or file, for each store."""
