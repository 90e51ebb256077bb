"""What an operator runs: the command line, the service, batch jobs, manifests."""
