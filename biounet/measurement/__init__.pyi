from .lesions import measure_lesions as measure_lesions
from .lesions import min_lesion_voxels as min_lesion_voxels
from .objects import Columns as Columns
from .objects import columns_to_csv as columns_to_csv
from .objects import measure_classes as measure_classes
from .objects import measure_columns as measure_columns
from .quality import TrainingData as TrainingData
from .quality import quality_warnings as quality_warnings
