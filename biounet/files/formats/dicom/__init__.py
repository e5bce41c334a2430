"""DICOM: series of single-frame files and multi-frame files as volumes, and segmentations."""
