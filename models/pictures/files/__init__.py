"""The structure of picture files: what must be read or mended before a library decodes them."""
