"""Every error that biounet raises on purpose, from its source, with advice for the frequent ones.

What differs from case to case stands as ``…``. Advice is in ``advice.toml`` by message; `stale_advice` finds what the
code no longer says.
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import biounet
from biounet.core import errors

PACKAGE = Path(biounet.__file__).parent
ADVICE = Path(__file__).with_name("advice.toml")
GAP = "…"
_CLASSES = {
    name for name, each in vars(errors).items() if isinstance(each, type) and issubclass(each, errors.BiounetError)
}

_ROOMS = {
    "cli": "Options of the commands",
    "api": "Python",
    "core": "Settings, recipes and annotations",
    "files": "Reading and writing files",
    "preprocessing": "Preparing images",
    "network": "Models and devices",
    "labelling": "Finding objects",
    "measurement": "Measuring",
    "evaluation": "Comparing with annotations",
    "segmentation": "Segmenting an image",
    "training": "Training",
    "reporting": "Overlays, tables and the report",
    "batch": "Folders of results",
}


@dataclass(frozen=True)
class Message:
    """An error of the source.

    Attributes
    ----------
    kind
        Name of its class.
    room
        Room of the package that raises it.
    cause, hint
        Its text, with ``…`` for what differs.
    """

    kind: str
    room: str
    cause: str
    hint: str

    @property
    def anchor(self) -> str:
        """Name of the place on the page."""
        return "error-" + re.sub(r"[^a-z0-9]+", "-", self.cause.lower()).strip("-")[:60].strip("-")


def page() -> str:
    """Return the frequent messages with advice, then all of them by room."""
    advice = read_advice()
    by_room: dict[str, list[Message]] = defaultdict(list)
    for message in find_messages():
        by_room[message.room].append(message)
    shown: set[str] = set()
    parts = ["## The frequent ones\n"]
    frequent = [each for messages in by_room.values() for each in messages if each.cause in advice]
    parts += [_entry(each, shown, advice[each.cause]) for each in sorted(frequent, key=lambda each: each.cause.lower())]
    for room in sorted(by_room, key=lambda room: ([*_ROOMS, room].index(room), room)):
        rest = [each for each in by_room[room] if each.cause not in advice]
        if rest:
            parts.append(f"## {_ROOMS.get(room, room.capitalize())}\n")
            parts += [_entry(each, shown) for each in sorted(rest, key=lambda each: each.cause.lower())]
    return "\n".join(parts)


def _entry(message: Message, shown: set[str], advice: str = "") -> str:
    """Return a message with its hint; only the first of those with one anchor gets it."""
    target = "" if message.anchor in shown else f"({message.anchor})=\n"
    shown.add(message.anchor)
    code = getattr(errors, message.kind).exit_code
    hint = f"Hint: {_as_text(message.hint)}. " if message.hint else ""
    ends = f"Exit code {code}" + (", or 3 when other images were done." if message.kind == "InputError" else ".")
    return f"{target}**{_as_text(message.cause)}**\n\n{hint}{ends}\n\n{advice}\n"


def _as_text(text: str) -> str:
    return re.sub(r"([\\`*_{}\[\]<>#$|~^])", r"\\\1", " ".join(text.split()))


def read_advice() -> dict[str, str]:
    """Return what to do, by the message it is about."""
    return {each["message"]: each["do"] for each in tomllib.loads(ADVICE.read_text(encoding="utf-8"))["advice"]}


def stale_advice() -> list[str]:
    """Return the messages of `ADVICE` that the code does not have."""
    causes = {message.cause for message in find_messages()}
    return [message for message in read_advice() if message not in causes]


@cache
def find_messages() -> tuple[Message, ...]:
    """Return the messages of all modules, each once."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        for function, call in _raised(ast.parse(path.read_text(encoding="utf-8"))):
            hints = [word.value for word in call.keywords if word.arg == "hint"]
            hint = next((text for each in hints for text in _texts(each, function)), "")
            for cause in _texts(call.args[0], function) if call.args else ():
                found.setdefault((cause, room), Message(_name(call), room, cause, hint))
    return tuple(found.values())


def _raised(tree: ast.Module) -> Iterator[tuple[ast.AST, ast.Call]]:
    """Yield each call of an error class, with the function that it stands in."""
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    inner = {id(node): function for function in functions for node in ast.walk(function)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _name(node) in _CLASSES:
            yield inner.get(id(node), tree), node


def _name(call: ast.Call) -> str:
    return str(getattr(call.func, "id", getattr(call.func, "attr", "")))  # of a name, or of an attribute


def _texts(node: ast.AST, function: ast.AST) -> Iterator[str]:
    """Yield what a text can be: those of a name are the ones that the function assigns to it."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.JoinedStr):
        yield re.sub(f"{GAP}(\\s*{GAP})+", GAP, "".join(_piece(value) for value in node.values))
    elif isinstance(node, ast.IfExp):
        yield from _texts(node.body, function)
        yield from _texts(node.orelse, function)
    elif isinstance(node, ast.BoolOp):
        for value in node.values:
            yield from _texts(value, function)
    elif isinstance(node, ast.Name):
        for other in ast.walk(function):
            if isinstance(other, ast.Assign) and any(
                isinstance(t, ast.Name) and t.id == node.id for t in other.targets
            ):
                yield from _texts(other.value, function)


def _piece(value: ast.AST) -> str:
    return str(value.value) if isinstance(value, ast.Constant) else GAP
