"""The oracle: decode, table, batch and the rest again in plain Python, written to be obviously right."""
