"""Pictures for people: in a notebook, in the viewer of a desktop, or in a file where there is neither."""

from __future__ import annotations

import base64
import io
import logging
import os
import sys
import tempfile
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from biounet.files import stem_of, write_picture

if TYPE_CHECKING:
    from biounet.api.results import Results

_EDGE = 640  # pixels of the longest edge of a picture in a notebook: stored in it, so not too large
_SMALL_EDGE = 160
_QUALITY = 90
_MOST_SHOWN = 60  # images in a gallery
_log = logging.getLogger(__name__)


def show_picture(picture: NDArray[np.uint8], name: str) -> Path | None:
    """Show a picture where that is possible; else save it, say where, and return its path."""
    if in_notebook():
        from IPython.display import Image, display

        display(Image(as_png(picture)))
        return None
    if has_display() and _open_viewer(picture, name):
        return None
    path = Path(tempfile.mkdtemp(prefix="biounet-"), f"{stem_of(Path(name))}_overlay.png")
    write_picture(path, picture)
    _log.warning("there is no display: the picture is in %s", path)
    return path


def in_notebook() -> bool:
    """Whether the interpreter is the kernel of a notebook."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return getattr(shell, "kernel", None) is not None


def has_display() -> bool:
    """Whether a window can be opened; of Linux and its like only the environment tells."""
    if sys.platform in ("win32", "darwin"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _open_viewer(picture: NDArray[np.uint8], name: str) -> bool:
    from PIL import Image, ImageShow

    return bool(ImageShow.show(Image.fromarray(picture), name))


def as_png(picture: NDArray[np.uint8], edge: int = _EDGE) -> bytes:
    """Return a picture as PNG, made smaller where its longest edge has more pixels."""
    return _encode(picture, edge, "PNG")


def _encode(picture: NDArray[np.uint8], edge: int, kind: str) -> bytes:
    from PIL import Image

    image, stream = Image.fromarray(picture), io.BytesIO()
    image.thumbnail((edge, edge))
    image.save(stream, kind, quality=_QUALITY)  # PNG has none
    return stream.getvalue()


def as_html(caption: str, picture: NDArray[np.uint8]) -> str:
    """Return a picture with a caption as HTML that needs no other file."""
    return f"<figure>{_image(picture, _EDGE)}<figcaption>{escape(caption)}</figcaption></figure>"


def gallery(results: Results) -> str:
    """Return small pictures of results with their counts, those that failed in words."""
    cells = [
        f'<figure style="display:inline-block;margin:4px;width:{_SMALL_EDGE}px;vertical-align:top">'
        f"{_image(result.overlay(), _SMALL_EDGE)}<figcaption>{escape(shorten(result.name, 40))}: "
        f"{result.describe_count()}{', flagged' if result.warnings else ''}</figcaption></figure>"
        for result in results[:_MOST_SHOWN]
    ]
    more = len(results) - _MOST_SHOWN
    lines = [f"and {more} more"] if more > 0 else []
    lines += [f"failed: {shorten(str(failed.error), 200)}" for failed in results.failed[:_MOST_SHOWN]]
    return "".join([*cells, *(f"<p>{escape(line)}</p>" for line in lines)])


def _image(picture: NDArray[np.uint8], edge: int) -> str:
    data = base64.b64encode(_encode(picture, edge, "WEBP")).decode()  # a fourth of a PNG; it is stored in the notebook
    return f'<img alt="overlay" style="max-width:100%" src="data:image/webp;base64,{data}">'


def shorten(text: str, most: int) -> str:
    """Return a text of at most so many characters."""
    return text if len(text) <= most else f"{text[: most - 1]}…"
