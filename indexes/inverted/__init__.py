"""Inverted files of product-quantised rows, and their training, for the indexes `vectors` and
`local`."""
