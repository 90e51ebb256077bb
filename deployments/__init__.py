"""The Ray Serve applications: the ingress, the retrievers and the annotators."""
