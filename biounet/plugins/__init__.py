"""What other programs load of biounet: the reader of napari, on public names of napari only."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
