"""One module for each format: what its header says, and its array."""
