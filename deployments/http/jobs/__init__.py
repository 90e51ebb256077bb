"""Routes about batch jobs."""
