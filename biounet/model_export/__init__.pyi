from .exporting import ExportedModel as ExportedModel
from .exporting import export_model as export_model
from .formats import MODEL_FORMATS as MODEL_FORMATS
from .formats import split_model_formats as split_model_formats
from .parity import open_session as open_session
from .parity import run_session as run_session
