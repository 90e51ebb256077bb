"""Deployment manifests for containers, clusters and monitoring, and the code that prints them."""
