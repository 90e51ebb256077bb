"""What ranks the hits of several retrievers in one list."""
