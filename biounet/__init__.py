"""Segment biomedical images with sparse annotations: cells and tumours, 2D and 3D, counted and measured."""

import lazy_loader

# Importing torch takes seconds; a name is loaded when it is first used.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
