"""Inverted files of product-quantised rows, and their training; `vectors` and `local` use them."""
