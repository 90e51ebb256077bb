"""Which retrievers there are, and how they are called."""
