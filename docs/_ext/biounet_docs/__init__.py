"""Pages of the reference, written from the code each time that the documentation is built."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from biounet_docs import columns, commands, messages, python_api, recipe_settings

PAGES = {
    "commands": commands.page,
    "columns": columns.page,
    "messages": messages.page,
    "python": python_api.page,
    "settings": recipe_settings.page,
}
_FROM_SIGNATURES = ("obj", "class", "exc", "data", "attr")


def setup(app: Any) -> dict[str, bool]:  # noqa: ANN401 - tests of this package need no Sphinx
    """Connect to Sphinx."""
    app.connect("builder-inited", lambda app: write_pages(Path(app.srcdir) / "reference" / "generated"))
    app.connect("missing-reference", _resolve)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def write_pages(folder: Path) -> None:
    """Write all pages into a folder, those that changed only: Sphinx reads these again."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, page in PAGES.items():
        path, text = folder / f"{name}.md", page()
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def _resolve(app: Any, env: Any, node: Any, content: Any) -> Any:  # noqa: ANN401 - Sphinx calls it so
    """Link a name in a docstring to the object of that name that is documented here; others stay plain.

    Names that a page writes as a function or method have to exist.
    """
    if node.get("refdomain") != "py" or node.get("reftype") not in _FROM_SIGNATURES:
        return None
    domain, last = env.get_domain("py"), node["reftarget"].split(".")[-1].rstrip("()")
    found = sorted(name for name in domain.objects if name.split(".")[-1] == last and name.count(".") <= 2)
    if not found:
        return content
    target = found[0]
    return domain.resolve_xref(env, node["refdoc"], app.builder, "obj", target, node, content)
