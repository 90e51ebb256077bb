"""Duplicates among stored images: pairs, groups, decisions and rules, as records of the store."""
