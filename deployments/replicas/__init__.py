"""The deployments that Serve replicates: retrievers and annotators."""
