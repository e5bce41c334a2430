"""An image larger than memory is worked on in super-blocks, by one process or many machines, with the same result."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
