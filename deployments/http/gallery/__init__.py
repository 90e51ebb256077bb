"""The routes of the old gateway, as an existing gallery calls them."""
