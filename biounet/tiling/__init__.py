"""Cut an image into blocks with a halo, and run a function on them on any executor."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
