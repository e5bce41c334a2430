"""Which files of a folder are images, annotations and results, and which belong together."""
