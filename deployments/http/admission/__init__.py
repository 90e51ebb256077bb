"""Who may ask, how much at once, how large: middleware before the routes."""
