from .blocks import Block as Block
from .blocks import Region as Region
from .blocks import block_lattice as block_lattice
from .blocks import raise_if_stopped as raise_if_stopped
from .blocks import run_blocks as run_blocks
