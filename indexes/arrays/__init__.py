"""Arrays behind the exact indexes: row storage, scans, selection of the nearest, frozen state."""
