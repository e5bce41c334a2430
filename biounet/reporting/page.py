"""What all pages share: the hash by which a page's policy allows its own style and script, and nothing else."""

from __future__ import annotations

import base64
import hashlib


def digest(text: str) -> str:
    """Return the hash that allows this script or style, with the line break before it, in the page's policy."""
    sha256 = hashlib.sha256(b"\n" + text.encode()).digest()
    return f"sha256-{base64.b64encode(sha256).decode()}"
