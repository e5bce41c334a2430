"""The reference of the command line, from the commands themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args, get_type_hints

from biounet_docs.markdown import code, table

_KINDS = {"str": "TEXT", "int": "N", "float": "NUMBER", "Path": "PATH"}


def page() -> str:
    """Return a section for each command."""
    import typer

    from biounet.cli.commands import app

    commands: Mapping[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    types = {info.callback.__name__: get_type_hints(info.callback) for info in app.registered_commands if info.callback}
    return "\n".join(_section(name, each, types[name.replace("-", "_")]) for name, each in commands.items())


def _section(name: str, command: Any, types: Mapping[str, Any]) -> str:  # noqa: ANN401 - typer's click is private
    arguments = [parameter for parameter in command.params if parameter.param_type_name == "argument"]
    options = [parameter for parameter in command.params if parameter not in arguments]
    usage = " ".join(["biounet", name, *map(_place, arguments), "[OPTIONS]"])
    parts = [f"## biounet {name}\n", f"{command.help}\n", f"```text\n{usage}\n```\n"]
    if arguments:
        parts.append(table(("argument", "meaning"), ((code(_place(each)), each.help or "") for each in arguments)))
    rows = [(_names(each, types[each.name]), _default(each), each.help or "") for each in options]
    return "\n".join([*parts, table(("option", "default", "meaning"), rows)])


def _place(argument: Any) -> str:  # noqa: ANN401
    name = argument.metavar or argument.name.upper()
    return name if argument.required else f"[{name}]"


def _names(option: Any, kind: Any) -> str:  # noqa: ANN401
    value = "" if option.is_flag else f" {option.metavar or _describe(kind)}"
    return ", ".join(code(name + value) for name in (*option.opts, *option.secondary_opts))


def _describe(kind: Any) -> str:  # noqa: ANN401
    first = (get_args(kind) or (kind,))[0]
    return _KINDS.get(getattr(first, "__name__", ""), "VALUE")


def _default(option: Any) -> str:  # noqa: ANN401
    if isinstance(option.show_default, str):
        return option.show_default
    if option.is_flag:
        return ("on" if option.default else "off") if option.secondary_opts else ""
    return "" if option.default is None or option.show_default is False else code(str(option.default))
