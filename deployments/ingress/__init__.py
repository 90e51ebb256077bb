"""What the ingress does for a request: decode, add, search, fuse, annotate, report."""
