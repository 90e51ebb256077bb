"""The store in plain dicts, for tests: the model with which the other stores are compared."""
