from .lesions import fewest_voxels as fewest_voxels
from .lesions import measure_lesions as measure_lesions
from .objects import Columns as Columns
from .objects import columns_to_csv as columns_to_csv
from .objects import measure_classes as measure_classes
from .objects import measure_columns as measure_columns
from .quality import Known as Known
from .quality import remarks_on as remarks_on
