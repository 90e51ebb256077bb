"""Ray Serve applications: the retrievers and the ingress."""
