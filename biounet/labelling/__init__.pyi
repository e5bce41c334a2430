from .label import BlockObjects as BlockObjects
from .label import label_block as label_block
from .label import label_classes as label_classes
from .label import required_halo as required_halo
from .stitching import Objects as Objects
from .stitching import label_objects as label_objects
from .stitching import stitch as stitch
