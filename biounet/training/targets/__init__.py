"""Annotation -> what the network learns at each voxel, and where it is known."""
