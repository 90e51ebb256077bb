"""The directory of retrievers: which there are, in which state, and how they are called."""
