"""The store contract and the code that every store shares; each store is a folder or a file."""
