"""Features as the old services stored them: brought in without recomputing, and written out."""
