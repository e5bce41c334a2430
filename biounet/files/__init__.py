"""The only code that knows file formats: whatever it reads or writes is whole, and nothing about it is guessed."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
