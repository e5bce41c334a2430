"""What the formats are called that models are exported to; their writers, which load torch, are in `exporting`."""

from __future__ import annotations

from biounet.core import SettingsError

EXTRA = "export"
"""The extra of biounet that installs what models are exported with."""

MODEL_FORMATS = {"onnx": ".onnx", "onnx-int8": "_int8.onnx", "bioimageio": "_bioimageio.zip"}
"""Formats as users type them, and how the names of their files end after that of the model."""


def split_model_formats(formats: str) -> tuple[str, ...]:
    """Return the names of formats in a text with commas; raise `SettingsError` for an unknown one."""
    names = tuple(dict.fromkeys(name for name in (part.strip().lower() for part in formats.split(",")) if name))
    unknown = next((name for name in names if name not in MODEL_FORMATS), None)
    if unknown or not names:
        cause = f"models are not exported as '{unknown}'" if unknown else "no format is named"
        raise SettingsError(cause, hint=f"of models there are {', '.join(MODEL_FORMATS)}")
    return names
