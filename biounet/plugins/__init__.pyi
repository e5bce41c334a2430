from .napari_reader import get_reader as get_reader
