from .class_scores import score_classes as score_classes
from .count_statistics import CorrectedMean as CorrectedMean
from .count_statistics import calibrate_counts as calibrate_counts
from .count_statistics import corrected_mean as corrected_mean
from .folders import evaluate as evaluate
from .matching import match_objects as match_objects
from .object_scores import Evaluation as Evaluation
from .object_scores import score_instances as score_instances
