from .blocks import Block as Block
from .blocks import Region as Region
from .blocks import end_if as end_if
from .blocks import lattice as lattice
from .blocks import run_blocks as run_blocks
