"""The reference of recipes, from the classes that validate them and what their docstrings and comments say."""

from __future__ import annotations

import inspect
import re
from typing import Any

from biounet.core import Recipe, Settings
from biounet_docs.markdown import code, from_rst, table

_BOUNDS = {
    "minimum": "≥ {}",
    "exclusiveMinimum": "> {}",
    "maximum": "≤ {}",
    "exclusiveMaximum": "< {}",
}
_KINDS = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true or false", "null": ""}


def page() -> str:
    """Return a section for each table of a recipe."""
    parts = []
    for name, field in Recipe.model_fields.items():
        if inspect.isclass(field.annotation) and issubclass(field.annotation, Settings):
            parts.append(_section(name, field.annotation))
    return "\n".join(parts)


def _section(name: str, settings: type[Settings]) -> str:
    text, described = split_docstring(settings)
    described = comments(settings) | described
    schema = settings.model_json_schema(by_alias=False)
    rows = [
        (code(key), values(part, schema), code(default(part)), described.get(key, ""))
        for key, part in schema["properties"].items()
    ]
    return f"## [{name}]\n\n{text}\n\n" + table(("setting", "values", "default", "meaning"), rows)


def split_docstring(settings: type[Settings]) -> tuple[str, dict[str, str]]:
    """Return the text of a docstring, and what its section of attributes says of each of them."""
    text, _, attributes = inspect.cleandoc(settings.__doc__ or "").partition("Attributes\n----------\n")
    found: dict[str, str] = {}
    for names, meaning in re.findall(r"^(\S.*)\n((?: {4}.*\n?)+)", attributes, flags=re.MULTILINE):
        for number, name in enumerate(names.split(", ")):
            found[name] = from_rst(inspect.cleandoc(meaning)) if number == 0 else f"see `{names.split(', ')[0]}`"
    return from_rst(text.strip()), found


def comments(settings: type[Settings]) -> dict[str, str]:
    """Return the comments behind the settings in the source of a class."""
    return dict(re.findall(r"^    (\w+): .*  # (?!noqa)(.*)$", inspect.getsource(settings), flags=re.MULTILINE))


def values(part: dict[str, Any], schema: dict[str, Any]) -> str:
    """Return what a setting can be, in words."""
    if "$ref" in part:
        return values(schema["$defs"][part["$ref"].split("/")[-1]], schema)
    if "anyOf" in part:
        return " or ".join(filter(None, (values(each, schema) for each in part["anyOf"])))
    if "const" in part or "enum" in part:
        return ", ".join(f"`{each}`" for each in part.get("enum", [part.get("const")]))
    if part.get("type") == "array":
        items = values(part["items"], schema) if part.get("items") else "values"
        return f"list of: {items}"
    if part.get("type") == "object":
        return f"table of: {values(part['additionalProperties'], schema)}"
    bounds = [text.format(f"{part[key]:g}") for key, text in _BOUNDS.items() if key in part]
    return " ".join([_KINDS.get(part.get("type", ""), part.get("type", "")), ", ".join(bounds)]).strip()


def default(part: dict[str, Any]) -> str:
    """Return a default as TOML writes it; empty for none."""
    value = part.get("default")
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value).replace("'", '"')
