"""Commands that compare counts with hand counts."""

# The parameters of a command are its options.
# ruff: noqa: PLR0913
from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from biounet.cli import options
from biounet.cli.terminal import echo, echo_json, echo_lines, table
from biounet.core import InputError, SettingsError

if TYPE_CHECKING:
    from biounet.batch import Correction

By = Annotated[
    str | None,
    typer.Option(help="Groups: names in --group of the run, such as well; or a pattern or CSV.", show_default=False),
]
HandCounts = Annotated[Path, typer.Argument(help="Table with the columns image and hand.", metavar="HAND.csv")]
DrawnAtRandom = Annotated[
    bool, typer.Option("--drawn-at-random", help="The images were drawn at random, but not by 'biounet sample'.")
]


def sample(
    run: options.Results,
    n: Annotated[int, typer.Option("--n", help="Images from each group.", min=1)] = 20,
    by: By = None,
    seed: Annotated[int, typer.Option(help="Another seed draws other images.")] = 1,
    out: Annotated[Path, typer.Option("--out", "-o", help="The table to fill in.")] = Path("sample.csv"),
    copies: Annotated[bool, typer.Option(help="Copy the drawn images into a folder beside the table.")] = True,
    pictures: Annotated[bool, typer.Option("--pictures", help="Make PNG pictures of them instead.")] = False,
    quiet: options.Quiet = False,
) -> None:
    """Draw images at random, to count them by hand."""
    from biounet.batch import sample as draw

    kind = "pictures" if pictures else "files" if copies else None
    drawn = draw(run, n, by=by, seed=seed, out=out, copies=kind)
    if not quiet:
        groups = f" from {len({*drawn.groups})} groups" if drawn.names else ""
        where = f", images in {out.with_name(f'{out.stem}_images')}/" if kind else ""
        echo(f"{len(drawn.images)} images drawn{groups}: fill in the column 'hand' of {out}{where}")


def correct(
    run: options.Results,
    hand: HandCounts,
    by: By = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="CSV for the table.", show_default=False)] = None,
    confidence: Annotated[float, typer.Option(help="Of the intervals of means.")] = 0.95,
    half_width: Annotated[
        float | None, typer.Option(help="Say how many hand counts give an interval of ± this.", min=0)
    ] = None,
    intervals: Annotated[
        Path | None, typer.Option(help="CSV for an interval of the count of each image.", show_default=False)
    ] = None,
    coverage: Annotated[float, typer.Option(help="Share of the images whose hand count the intervals hold.")] = 0.9,
    of: Annotated[
        Path | None, typer.Option(help="Intervals for these results, of images like the counted ones.")
    ] = None,
    drawn_at_random: DrawnAtRandom = False,
    json_lines: options.Json = False,
) -> None:
    """Correct mean counts of groups by hand counts of some images."""
    from biounet.batch import correct as correct_means
    from biounet.batch import interval_columns
    from biounet.reporting import write_table

    if of is not None and intervals is None:
        raise SettingsError("--of without --intervals", hint="name the CSV for the intervals")
    for path, column in ((out, "corrected"), (intervals, "count_low")):
        if path is not None:
            _check_replaceable(path, column)
    if out is not None and intervals is not None and out.resolve() == intervals.resolve():
        raise SettingsError("--out and --intervals name the same file", path=out)
    found = correct_means(run, hand, by=by, confidence=confidence, drawn_at_random=drawn_at_random)
    if intervals is not None:
        columns = interval_columns(run, hand, coverage, of, drawn_at_random=drawn_at_random)
        write_table(intervals, columns)
    if out is not None:
        write_table(out, found.columns(half_width))
    if json_lines:
        for row in _rows(found, half_width):
            echo_json(row)
    else:
        echo_lines(table(_shown(found, half_width)))
        if intervals is not None:
            counted = sum(group.counted for group in found.groups)
            echo(f"{coverage:.0%} intervals in {intervals}: they hold for images like the {counted} counted by hand")
    for note in found.notes:
        echo(f"NOTE {note}", sys.stderr)


def _check_replaceable(path: Path, column: str) -> None:
    """Raise `SettingsError` if a file is there that is no earlier table with this column: hand counts, or a run's."""
    from biounet.files import read_columns

    if not os.path.lexists(path):
        return
    try:
        read_columns(path, (column,))
    except InputError as error:
        cause = "is there already, and not from 'biounet correct'"
        raise SettingsError(cause, path=path, hint="choose another name, or remove it") from error


def _rows(found: Correction, half_width: float | None) -> list[dict[str, object]]:
    columns = found.columns(half_width)
    rows = zip(*(column.tolist() for column in columns.values()), strict=True)
    return [{name: None if cell != cell else cell for name, cell in zip(columns, row, strict=True)} for row in rows]


def _shown(found: Correction, half_width: float | None) -> list[list[str]]:
    """Return the table that is shown: figures with their intervals, and without those that are not there."""
    level = f"{next(group.mean.confidence for group in found.groups if group.mean):.0%} interval"
    needed = [] if half_width is None else [f"needed for ±{half_width:g}"]
    header = [*found.names, "images", "by hand", "automatic", "corrected", level, "hand counts alone", "bias"]
    rows = [[*header, "correlation", "gain", *needed]]
    for group in found.groups:
        mean, cells = group.mean, [*group.values, str(group.images), str(group.counted), f"{group.automatic:.4g}"]
        if mean is None:
            cells += ["-"] * (len(rows[0]) - len(cells))
        else:
            alone = f"{mean.hand_only:.4g} ± {mean.hand_only_half_width:.2g}"
            cells += [f"{mean.corrected:.4g}", f"{mean.low:.4g} to {mean.high:.4g}", alone, f"{mean.bias:+.2g}"]
            cells += ["-" if value != value else f"{value:.3g}" for value in (mean.correlation, mean.gain)]
            cells += [] if half_width is None else [str(mean.counts_needed(half_width))]
        rows.append(cells)
    return rows
