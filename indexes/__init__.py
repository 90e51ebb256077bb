"""Stores, the follower, and the indexes that answer from them."""
