"""The routes of /v1/duplicates."""
