"""The page: its routes, and its modules and styles in `static`."""
