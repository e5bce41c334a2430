"""The command that measures labels of any program."""

# The parameters of a command are its options: each is one line of its help, and passing them on is all that it does.
# ruff: noqa: PLR0913
from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from biounet.cli import options
from biounet.cli.terminal import (
    echo,
    show_row,
)
from biounet.core import check_address_space

if TYPE_CHECKING:
    pass


def measure(
    labels: options.LabelImages,
    image: options.LabelledImages = None,
    inside: options.Inside = None,
    out: options.Out = Path("biounet-measured"),
    channels: options.Channels = None,
    ring: options.Ring = None,
    axes: options.Axes = None,
    spacing: options.Spacing = None,
    plane: options.Plane = None,
    scene: options.Scene = None,
    columns: options.Columns = None,
    ram: options.Ram = None,
    excel: options.Excel = False,
    quiet: options.Quiet = False,
    json_lines: options.Json = False,
) -> None:
    """Measure labels of any program, the channels of their images, and the objects they lie in."""
    check_address_space()
    from biounet.core import as_bytes, failure_exit_code
    from biounet.files import describe_skipped
    from biounet.measurement import MeasureOptions
    from biounet.reporting import LabelInputs, MeasuredTables, measure_files

    names = None if channels is None else tuple(name.strip() for name in channels.split(","))
    how = MeasureOptions(
        axes, options.parse_spacing(spacing), channels=names, plane=plane, ring=ring, scene=scene or ""
    )
    memory = None if ram is None else as_bytes(ram, "--ram")
    inputs = LabelInputs(labels, options.parse_images(image), inside)
    show = partial(show_row, quiet=quiet, json_lines=json_lines)
    rows, unused = measure_files(inputs, out, how, MeasuredTables(excel, columns, memory), report=show)
    if not quiet and not json_lines:
        counts = [row.count for row in rows if row.count is not None]
        echo(f"{sum(counts)} objects measured in {len(counts)} of {len(rows)} label images; see {out}/")
    if not quiet and unused:
        echo(describe_skipped(unused), sys.stderr)
    raise typer.Exit(failure_exit_code(sum(row.status == "failed" for row in rows), len(rows)))
