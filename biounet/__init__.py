"""Segment biomedical images with sparse annotations: cells and tumours, 2D and 3D, counted and measured."""

__version__ = "0.1.0"
