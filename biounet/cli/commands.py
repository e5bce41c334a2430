"""The command line: its commands, and what a user sees of an error.

Nothing heavy is imported before a command runs: importing torch takes seconds, and ``--help`` must not.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import Annotated

import typer
from typer.exceptions import Abort, TyperException

from biounet.cli import exporting, hand_counts, measuring, segmenting, training
from biounet.cli.terminal import echo, echo_error, escape_invalid
from biounet.core import (
    BiounetError,
    MachineError,
    SettingsError,
    check_working_folder,
    describe_shortage,
    exit_on_signals,
    interrupt_on_signals,
    is_follower,
    is_out_of_memory,
)

_FIRST_PROCESS = 10.0  # seconds, in which the first process of a launch has shown an error of the command line

app = typer.Typer(
    name="biounet",
    help="Segment cells and tumours; learn from a few annotations.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.callback(invoke_without_command=True)
def _main(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        from biounet.core import __version__

        echo(f"biounet {__version__}")
        raise typer.Exit


for _command in (
    segmenting.segment,
    measuring.measure,
    segmenting.verify,
    exporting.export,
    hand_counts.sample,
    hand_counts.correct,
    training.train,
    training.evaluate,
    training.check,
    training.models,
    segmenting.demo,
):
    app.command()(_command)


def main() -> None:
    """Run the command line; errors become one line and an exit code."""
    interrupt_on_signals()
    escape_invalid()
    try:
        check_working_folder()
        code = app(standalone_mode=False)
    except (KeyboardInterrupt, Abort):
        code = 130
    except Exception as error:  # the user sees one line, whatever the defect
        if os.environ.get("BIOUNET_DEBUG"):
            raise
        code = _report(error)
    finally:
        exit_on_signals()  # at exit the interpreter would show a traceback
    raise SystemExit(code or 0)


def _report(error: Exception) -> int:
    """Show an error in one line, and return the exit code."""
    if isinstance(error, BiounetError):
        text, code = str(error), error.exit_code
    elif isinstance(error, TyperException):
        text, code = error.format_message().replace(": Value error, ", ": "), SettingsError.exit_code
        if is_follower():  # the same in the first process, which shows it, and whose end lets the launcher end this one
            time.sleep(_FIRST_PROCESS)
            return code
    elif is_out_of_memory(error):
        text, code = describe_shortage(error), MachineError.exit_code
    elif isinstance(error, OSError):
        text, code = str(MachineError(error.strerror or str(error), path=error.filename)), MachineError.exit_code
    else:
        hint = "a defect of biounet, please report it; BIOUNET_DEBUG=1 shows where"
        text, code = f"{type(error).__name__}: {error} (hint: {hint})", MachineError.exit_code
    with suppress(BiounetError):  # standard error may go to a full disk
        echo_error(text)
    return code
