"""What pages show of pictures and of the collection."""
