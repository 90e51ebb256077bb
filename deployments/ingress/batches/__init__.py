"""Adds of many pictures at once that no copy may precede."""
