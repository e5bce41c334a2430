"""Hand counts of images that were drawn from a batch: group means corrected by them, and intervals for other images."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from biounet.batch.run_file import RunFile, read_run
from biounet.batch.sampling import RunGroups, drawing_order, groups_of_run
from biounet.core import InputError, SettingsError, as_path, list_some
from biounet.evaluation import CorrectedMean, calibrate_counts, corrected_mean
from biounet.files import read_columns
from biounet.measurement import Columns

if TYPE_CHECKING:
    import pandas as pd

_SHOWN = 3  # in a message
_LONGEST_SEED = 40  # characters
_EQUAL = 1.1  # between shares that were drawn from groups of about one size
_DRAWN = ("image", "file", "seed", "of", "hand")  # columns of a drawn sample that are no groups
_FIGURES = ("corrected", "low", "high", "hand_only", "hand_only_half_width", "bias", "correlation", "gain")


@dataclass(frozen=True)
class CorrectedGroup:
    """A group of images: values of the names of groups, the number of its images and hand counts, and its means.

    `mean` is None where fewer than two images were counted by hand.
    """

    values: tuple[str, ...]
    images: int
    counted: int
    automatic: float
    mean: CorrectedMean | None


@dataclass(frozen=True)
class Correction:
    """Mean counts per image of groups, corrected by hand counts; `notes` say what to know about them."""

    names: tuple[str, ...]
    groups: tuple[CorrectedGroup, ...]
    notes: tuple[str, ...] = ()

    def columns(self, half_width: float | None = None) -> Columns:
        """Return a row per group; with a wanted half width also ``needed``, the hand counts that would reach it."""
        columns: Columns = {
            name: np.array([group.values[n] for group in self.groups], object) for n, name in enumerate(self.names)
        }
        columns |= {name: np.array([getattr(group, name) for group in self.groups]) for name in ("images", "counted")}
        columns["automatic"] = np.array([group.automatic for group in self.groups], float)
        means = [group.mean for group in self.groups]
        columns |= {name: np.array([getattr(mean, name, math.nan) for mean in means], float) for name in _FIGURES}
        if half_width is not None:
            needed = [mean.counts_needed(half_width) if mean else None for mean in means]
            columns["needed"] = np.array(needed, object)
        return columns

    @property
    def table(self) -> pd.DataFrame:
        """The `columns` as a pandas DataFrame."""
        import pandas as pd  # slow to import

        return pd.DataFrame(self.columns())


def correct(
    run: str | Path,
    hand: str | Path,
    *,
    by: str | Path | None = None,
    confidence: float = 0.95,
    drawn_at_random: bool = False,
) -> Correction:
    """Correct the mean counts of groups of images by hand counts of some of them.

    See `biounet.evaluation.corrected_mean`. The means are those of the images of the run.

    Parameters
    ----------
    run
        Folder of results.
    hand
        Table with the columns ``image`` and ``hand``, such as `sample` wrote and somebody filled in. Images without a
        number are left out.
    by
        Groups, as for `sample`; None: those of the table.
    confidence
        Of the intervals.
    drawn_at_random
        Whether to believe that images were drawn at random that `sample` did not draw.

    Raises
    ------
    SettingsError
        If hand counts are not numbers, or of images that are not in the run or were not drawn at random.
    """
    if not 0 < confidence < 1:
        raise SettingsError(f"--confidence {confidence:g}: between 0 and 1, such as 0.95")
    read, table = read_run(as_path(run, "the folder of results")), as_path(hand, "the table of hand counts")
    counts = _HandCounts.read(table, read)
    drawn_by = counts.groups_in(read) or by
    groups = groups_of_run(read, drawn_by if by is None else by)
    if not drawn_at_random:
        strata = groups_of_run(read, drawn_by)
        counts.check_drawn(strata)
        counts.check_shares(strata, groups)
    corrected = [_correct_group(key, rows, counts.counts, confidence) for key, rows in _automatic(groups).items()]
    if all(group.mean is None for group in corrected):
        raise SettingsError("no group has two hand counts", path=table, hint="count more of the drawn images")
    return Correction(groups.names, tuple(corrected), tuple(_notes(corrected, counts)))


def count_intervals(
    run: str | Path,
    hand: str | Path,
    *,
    coverage: float = 0.9,
    of: str | Path | None = None,
    drawn_at_random: bool = False,
) -> pd.DataFrame:
    """Return intervals for the counts of images, by hand counts of some.

    They hold for images like those counted by hand: over many such images, a share of `coverage` of the hand counts
    lies within. See `biounet.evaluation.calibrate_counts`.

    Parameters
    ----------
    run, hand, drawn_at_random
        As for `correct`.
    of
        Folder of results of other images like these, by the same model and settings; None: the images of `run`.

    Returns
    -------
    A row for each counted image: ``image``, ``count``, ``hand`` where it is known, else ``count_low`` and
    ``count_high``.

    Raises
    ------
    SettingsError
        As `correct`; if there are too few hand counts for this coverage; or if the other results are of another model
        or other settings.
    """
    import pandas as pd  # slow to import

    return pd.DataFrame(interval_columns(run, hand, coverage, of, drawn_at_random=drawn_at_random))


def interval_columns(
    run: str | Path, hand: str | Path, coverage: float, of: str | Path | None, *, drawn_at_random: bool
) -> Columns:
    """Return the columns of `count_intervals`."""
    if not 0 < coverage < 1:
        raise SettingsError(f"--coverage {coverage:g}: between 0 and 1, such as 0.9")
    read, table = read_run(as_path(run, "the folder of results")), as_path(hand, "the table of hand counts")
    counts = _HandCounts.read(table, read)
    if not drawn_at_random:
        counts.check_drawn(groups_of_run(read, counts.groups_in(read)))
    automatic = {row.image: row.count or 0 for row in read.rows}
    calibration = calibrate_counts([automatic[name] for name in counts.counts], [*counts.counts.values()])
    target = read if of is None else read_run(as_path(of, "the other folder of results"))
    if (target.model, target.settings) != (read.model, read.settings):
        raise SettingsError("results of another model or other settings than the hand counts are of", path=of)
    known = counts.counts if of is None else {}
    rows = [row for row in target.rows if row.status != "failed" and row.count is not None]
    intervals = [(None, None) if row.image in known else calibration.interval(row.count or 0, coverage) for row in rows]
    return {
        "image": np.array([row.image for row in rows], object),
        "count": np.array([row.count for row in rows], object),
        "hand": np.array([_as_text(known.get(row.image)) for row in rows], object),
        "count_low": np.array([low for low, _ in intervals], object),
        "count_high": np.array([high for _, high in intervals], object),
    }


@dataclass(frozen=True)
class _HandCounts:
    """A table of hand counts."""

    path: Path
    names: tuple[str, ...]  # of further columns: groups
    counts: dict[str, float]  # by the image's name in the run
    seeds: dict[str, str]
    of: dict[str, str]
    blank: tuple[str, ...]  # images without a number

    @classmethod
    def read(cls, path: Path, run: RunFile) -> _HandCounts:
        """Read a table; raise `SettingsError` for hand counts that cannot be used."""
        try:
            names, rows = read_columns(path, ("image", "hand"))
        except InputError as error:
            hint = None if path.exists() else "'biounet sample' draws images to count, and writes such a table"
            raise SettingsError(error.cause, path=path, hint=hint or error.hint) from error
        status = {row.image: row for row in run.rows}
        if foreign := [row["image"] for _, row in rows if row["image"] not in status]:
            raise SettingsError(f"not in this run: {list_some(foreign, _SHOWN)}", path=path)
        if failed := [row["image"] for _, row in rows if status[row["image"]].count is None]:
            raise SettingsError(f"these images have no count in this run: {list_some(failed, _SHOWN)}", path=path)
        if twice := [name for name, number in Counter(row["image"] for _, row in rows).items() if number > 1]:
            raise SettingsError(f"named more than once: {list_some(twice, _SHOWN)}", path=path)
        counts = {row["image"]: _parse_count(row["hand"], line, path) for line, row in rows if row["hand"]}
        if not counts:
            raise SettingsError("no hand counts yet", path=path, hint="fill in the column 'hand'")
        seeds, of = ({row["image"]: row.get(name, "") for _, row in rows} for name in ("seed", "of"))
        groups = tuple(name for name in names if name not in _DRAWN)
        return cls(path, groups, counts, seeds, of, tuple(row["image"] for _, row in rows if not row["hand"]))

    def groups_in(self, run: RunFile) -> str | None:
        """Return the columns that are groups of the run; None without any."""
        known = () if run.options.group is None else run.options.group.names
        return ",".join(name for name in self.names if name in known) or None

    def check_drawn(self, groups: RunGroups) -> None:
        """Raise `SettingsError` unless the images are the first that their seed draws from each group."""
        hint = "draw images with 'biounet sample', or say --drawn-at-random if they were drawn otherwise"
        if not all(self.seeds.values()):
            raise SettingsError("does not say how the images were drawn", path=self.path, hint=hint)
        for key, rows in groups.rows.items():
            inside = {row.image for row in rows} & self.seeds.keys()
            if not inside:
                continue
            group = f" of {', '.join(key)}" if key else ""
            if {self.of[image] for image in inside} != {str(len(rows))}:
                cause = f"the images{group} were drawn from others than the {len(rows)} of this run"
                raise SettingsError(cause, path=self.path, hint="draw again: the run has changed")
            seeds = {self.seeds[image] for image in inside}
            if any({*drawing_order(rows, _as_seed(seed, self.path))[: len(inside)]} != inside for seed in seeds):
                raise SettingsError(f"the images{group} are not those that were drawn", path=self.path, hint=hint)

    def check_shares(self, strata: RunGroups, groups: RunGroups) -> None:
        """Raise `SettingsError` if images were drawn by other groups, and unequal shares of these are in one group."""
        stratum = {row.image: (key, len(rows)) for key, rows in strata.rows.items() for row in rows}
        for key, rows in groups.rows.items():
            drawn = Counter(stratum[row.image][0] for row in rows if row.image in self.counts)
            shares = {drawn[name] / size for name, size in (stratum[row.image] for row in rows)}
            if len(shares) > 1 and drawn and max(shares) > _EQUAL * min(shares):
                cause = f"from {', '.join(key) or 'the run'}, unequal shares of {', '.join(strata.names)} were drawn"
                raise SettingsError(cause, path=self.path, hint="draw by the groups whose means are to be corrected")


def _parse_count(text: str, line: int, path: Path) -> float:
    try:
        count = math.nan if "_" in text else float(text)  # Python takes 1_0 for ten
    except ValueError:
        count = math.nan
    if not 0 <= count < math.inf:
        raise SettingsError(f"line {line}: the hand count {text!r} is not a number, 0 or more", path=path)
    return count


def _as_seed(text: str, path: Path) -> int:
    if not (text.removeprefix("-").isdecimal() and len(text) <= _LONGEST_SEED):
        shown = text if len(text) <= _LONGEST_SEED else f"{text[:_LONGEST_SEED]}…"
        raise SettingsError(f"seed {shown!r}: not a whole number", path=path)
    return int(text)


def _as_text(count: float | None) -> str | None:
    return None if count is None else f"{count:g}"


def _automatic(groups: RunGroups) -> dict[tuple[str, ...], dict[str, int]]:
    return {key: {row.image: row.count or 0 for row in rows} for key, rows in groups.rows.items()}


def _correct_group(
    key: tuple[str, ...], automatic: Mapping[str, int], hand: Mapping[str, float], confidence: float
) -> CorrectedGroup:
    names, values = list(automatic), list(automatic.values())
    drawn = [number for number, name in enumerate(names) if name in hand]
    mean = None
    if len(drawn) > 1:
        mean = corrected_mean(values, drawn, [hand[names[number]] for number in drawn], confidence=confidence)
    return CorrectedGroup(key, len(names), len(drawn), float(np.mean(values)), mean)


def _notes(groups: Sequence[CorrectedGroup], counts: _HandCounts) -> list[str]:
    """Return what to know about a correction."""
    notes = []
    if counts.blank:
        which = f"{len(counts.blank)} drawn images have no hand count ({list_some(counts.blank, _SHOWN)})"
        notes.append(f"{which}: the others are a random sample only if these were not left out for what they show")
    kinds: dict[str, list[str]] = defaultdict(list)
    for group in groups:
        name = ", ".join(group.values) or "all images"
        if group.mean is None:
            kinds["fewer than two hand counts, not corrected"].append(name)
        elif group.mean.error_sd == 0 and group.counted < group.images:
            kinds["all hand counts differ alike from the automatic ones, the interval is too narrow"].append(name)
    return notes + [f"{what}: {list_some(names, _SHOWN)}" for what, names in kinds.items()]
