"""Labels of images larger than memory: a sharded OME-Zarr, and what is made of it."""
