"""Search of the text in annotations."""
