"""Images that are read region by region: the arrays of files, rearranged as the in-memory path arranges whole ones."""
