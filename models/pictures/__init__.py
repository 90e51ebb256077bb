"""The picture decoder: file formats, the decode itself, the child process for fragile formats."""
