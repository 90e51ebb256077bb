"""How well a running service finds altered copies of its owner's own pictures."""
