"""The version of biounet: what run files, model cards and `--version` say, and what the package is built as."""

__version__ = "0.1.0"
