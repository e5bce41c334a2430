"""Commands that write results and models in the formats of other programs."""

# The parameters of a command are its options.
from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from biounet.cli import options
from biounet.cli.terminal import echo, echo_error, echo_json, stoppable

if TYPE_CHECKING:
    from biounet.batch import ExportRow

Exported = Annotated[str, typer.Argument(help="Folder of results.", metavar="OUT")]
Formats = Annotated[
    str, typer.Option("--format", "-f", help="Formats, such as parquet; several with commas.", show_default=False)
]


def export(
    source: Exported,
    formats: Formats,
    overwrite: options.Overwrite = False,
    quiet: options.Quiet = False,
    json_lines: options.Json = False,
) -> None:
    """Write results in the formats of other programs."""
    raise typer.Exit(export_results(Path(source), formats, overwrite=overwrite, quiet=quiet, json_lines=json_lines))


def export_results(
    out: Path, formats: str, *, overwrite: bool = False, quiet: bool = False, json_lines: bool = False
) -> int:
    """Export a folder of results, show what became of it and return the exit code."""
    from biounet.batch import describe_exports, export_exit_code, export_run
    from biounet.files import split_formats

    names = split_formats(formats)

    def show(row: ExportRow) -> None:
        if json_lines:
            echo_json(vars(row))
        elif row.status == "failed":
            echo_error(f"{row.image} as {row.format}: {row.message}")

    with stoppable("continues") as stop:
        rows = export_run(out, names, show, overwrite=overwrite, stop=stop)
    if not quiet and not json_lines:
        echo(f"{describe_exports(rows)}; see {out}/")
    return export_exit_code(rows)
