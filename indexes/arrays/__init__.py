"""Rows in arrays of our own: storage, scans, selection of the nearest, frozen state."""
