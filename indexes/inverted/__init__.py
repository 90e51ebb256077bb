"""Inverted files of product-quantised rows for `vectors` and `local`, and their training."""
