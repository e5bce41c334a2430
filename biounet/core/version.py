"""The version of biounet, of run records, model cards and the built package."""

__version__ = "0.2.0.dev0"
