"""What runs a service: the command line, batch jobs, manifests."""
