"""The only code that knows file formats."""

from biounet.files.atomic import append_line, atomic_path, find_parts, hash_file, part_begin, together, write_text
from biounet.files.axes import ReadOptions
from biounet.files.cases import FoundImage
from biounet.files.find import Search, find_images, list_images, search_images
from biounet.files.isolated import FileState, Reader, Readers
from biounet.files.left_out import LeftOut, describe_left_out
from biounet.files.masks import read_annotation, read_labels, unknown_regions
from biounet.files.names import natural, stem_of
from biounet.files.pairs import Pair, Unpaired, find_pairs, match_pairs
from biounet.files.read import Description, arranged, describe, describe_volume, read_volume, rearranged
from biounet.files.write import kind_of_labels, label_suffix, write_labels, write_picture

__all__ = [
    "Description",
    "FileState",
    "FoundImage",
    "LeftOut",
    "Pair",
    "ReadOptions",
    "Reader",
    "Readers",
    "Search",
    "Unpaired",
    "append_line",
    "arranged",
    "atomic_path",
    "describe",
    "describe_left_out",
    "describe_volume",
    "find_images",
    "find_pairs",
    "find_parts",
    "hash_file",
    "kind_of_labels",
    "label_suffix",
    "list_images",
    "match_pairs",
    "natural",
    "part_begin",
    "read_annotation",
    "read_labels",
    "read_volume",
    "rearranged",
    "search_images",
    "stem_of",
    "together",
    "unknown_regions",
    "write_labels",
    "write_picture",
    "write_text",
]
