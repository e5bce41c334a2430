"""Annotation to training target: the value of each output channel of the network, and a weight for each voxel."""
