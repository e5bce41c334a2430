from .blocks import MAX_PENDING as MAX_PENDING
from .blocks import Block as Block
from .blocks import block_lattice as block_lattice
from .blocks import relative_region as relative_region
from .blocks import run_blocks as run_blocks
