"""Remembered pictures, so that they are recognised when they come back."""
