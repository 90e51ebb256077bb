"""Search by local features: descriptors, votes, geometric verification."""
