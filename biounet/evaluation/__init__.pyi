from .folders import evaluate_folders as evaluate_folders
from .folders import score_classes as score_classes
from .folders import score_instances as score_instances
from .matching import match_objects as match_objects
from .scores import Evaluation as Evaluation
