"""Commands on a whole collection."""
