"""Results in Python: of one image, which shows itself, and of many, with their tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, overload

import numpy as np
from numpy.typing import NDArray

from biounet.api.display import as_html, as_png, gallery, shorten, show_picture
from biounet.core import BiounetError, SettingsError, as_path, find_warnings, list_some
from biounet.files import split_formats, stem_of
from biounet.reporting import draw_segmentation, export_segmentation, write_outputs
from biounet.segmentation import Segmentation

if TYPE_CHECKING:
    import pandas as pd

PathLike = str | Path
_LONGEST = 300  # characters of a `repr`
_SHOWN = 5  # names of images in a message


@dataclass(frozen=True, repr=False)
class Result(Segmentation):
    """The segmentation of one image: ``labels``, ``count``, ``table``; it shows itself in a notebook.

    Attributes
    ----------
    name
        Of the image, in tables and in the names of files; empty for an array.
    """

    name: str = ""

    def overlay(self) -> NDArray[np.uint8]:
        """Return the image with the outlines of objects, RGB, shape ``(y, x, 3)``."""
        return draw_segmentation(self)

    def show(self) -> Path | None:
        """Show the overlay: in the notebook, or in the image viewer of the desktop.

        Without a display, as on a cluster, the picture is saved to a temporary folder, and a line says where.

        Returns
        -------
        The path of that picture, or None where it was shown.
        """
        return show_picture(self.overlay(), Path(self.name or "image").name)

    def save(self, folder: PathLike, name: str | None = None, *, export: Sequence[str] | str = ()) -> list[Path]:
        """Write label image, table and overlay to a folder, which is created; return their paths.

        Parameters
        ----------
        name
            The stem of their names, by default that of the image.
        export
            Formats of other programs to write as well, such as ``"geojson"``; files of these names are replaced.
        """
        folder = as_path(folder, "the folder")
        if name is not None and (not isinstance(name, str) or Path(as_path(name, "the name")).name != name):
            raise SettingsError(f"{name!r} is not the name of a file", hint="give the folder apart from it")
        if name is None and not self.name:
            raise SettingsError("an image that was not read from a file needs a name", hint="result.save(folder, name)")
        formats, stem = split_formats(export), name or stem_of(Path(self.name))
        return [*write_outputs(self, folder, stem), *export_segmentation(self, folder, stem, formats)]

    def __repr__(self) -> str:
        return f"<{shorten(self._describe(), _LONGEST - 2)}>"

    def _describe(self) -> str:
        grid = self.volume.grid
        shape = " x ".join(map(str, grid.shape))
        size = "pixel size unknown"
        if grid.spacing is not None:
            steps = grid.spacing if len(set(grid.spacing)) > 1 else grid.spacing[:1]
            size = f"{' x '.join(f'{step:.4g}' for step in steps)} {'µm' if grid.unit == 'um' else grid.unit}"
        flags = f"; flagged: {'; '.join(self.warnings)}" if self.warnings else ""
        return f"Result {self.name or 'of an array'}: {self.describe_count()}, {shape} px, {size}{flags}"

    @property
    def warnings(self) -> tuple[str, ...]:
        """Those of the `notes` that ask to look at the image; it is `flagged` then."""
        return find_warnings(self.notes)

    def describe_count(self) -> str:
        """Return the count in words, or how many classes were measured where none are counted."""
        if self.count is None:
            return f"{len(next(iter(self.columns.values())))} classes"
        kind = "lesion" if self.measurements.kind == "lesions" else "object"
        frames = f" in {len(self.frames)} frames" if self.frames else ""
        return f"{self.count} {kind}{'' if self.count == 1 else 's'}{frames}"

    def _repr_html_(self) -> str:
        return as_html(self._describe(), self.overlay())

    def _repr_png_(self) -> bytes:
        return as_png(self.overlay())


_OF_AN_IMAGE = {name for name in (*dir(Result), *Result.__dataclass_fields__) if not name.startswith("_")}


@dataclass(frozen=True)
class FailedImage:
    """An image that could not be segmented, and the error."""

    name: str
    error: BiounetError

    def __repr__(self) -> str:
        return f"<FailedImage {shorten(str(self.error), _LONGEST - 14)}>"


class Results(Sequence[Result]):
    """The results of images, in their order: a list with tables of all of them.

    Attributes
    ----------
    failed
        The images that could not be segmented, where they are skipped.
    """

    def __init__(self, results: Iterable[Result], failed: Iterable[FailedImage] = ()) -> None:
        self._results, self.failed = tuple(results), tuple(failed)

    @overload
    def __getitem__(self, which: int | str) -> Result: ...
    @overload
    def __getitem__(self, which: slice) -> Results: ...
    def __getitem__(self, which: int | str | slice) -> Result | Results:
        """Return a result by its number or the name of its image, or several by a slice."""
        if isinstance(which, slice):
            return Results(self._results[which])
        if isinstance(which, str):
            found = [result for result in self._results if result.name == which]
            if not found:
                names = list_some([result.name for result in self], _SHOWN)
                raise KeyError(f"no image is called {which!r}; there are {names}")
            return found[0]
        return self._results[which]

    def __len__(self) -> int:
        return len(self._results)

    if not TYPE_CHECKING:  # or type checkers would take any name for an attribute

        def __getattr__(self, name: str) -> NoReturn:
            """Say where that is which each image has and a list of them has not."""
            hint = f"; each image has its own: results[0].{name}" if name in _OF_AN_IMAGE else ""
            raise AttributeError(f"results of images have no {name!r}{hint}", name=name, obj=self)

    @property
    def count(self) -> int | None:  # type: ignore[override]  # as of one image; nobody looks for equal results
        """Number of objects in all images together; None where nothing was counted."""
        counts = [result.count for result in self if result.count is not None]
        return sum(counts) if counts else None

    @property
    def counts(self) -> pd.Series[int]:
        """Counts by the names of images: whole numbers, missing where nothing was counted or the image failed."""
        import pandas as pd  # slow to import

        names = [*(result.name for result in self), *(failed.name for failed in self.failed)]
        counts = [*(result.count for result in self), *(None for _ in self.failed)]
        return pd.Series(counts, index=pd.Index(names, name="image"), dtype="Int64", name="count")

    @property
    def table(self) -> pd.DataFrame:
        """The tables of all images below each other, with the name of the image as the first column."""
        import pandas as pd  # slow to import

        tables = [result.table.assign(image=result.name) for result in self if len(result.table)]
        table = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame({"image": []})
        return table[["image", *(name for name in table.columns if name != "image")]]

    def save(self, folder: PathLike, *, export: Sequence[str] | str = ()) -> list[Path]:
        """Write label image, table and overlay of each image to a folder, in folders like those of the images.

        `export` names formats of other programs to write as well, as `Result.save` does.
        """
        folder = as_path(folder, "the folder")
        names = [Path(result.name) for result in self]
        targets = [(folder / name.parent, stem_of(name)) for name in names]
        for name, target in zip(names, targets, strict=True):
            if targets.count(target) > 1:
                hint = "save each under a name of its own with result.save(folder, name)"
                raise SettingsError(f"more than one result would be saved as that of {name}", hint=hint)
        return [
            path for result, target in zip(self, targets, strict=True) for path in result.save(*target, export=export)
        ]

    def show(self) -> list[Path | None]:
        """Show the overlay of each image, as `Result.show` does."""
        return [result.show() for result in self]

    def __repr__(self) -> str:
        counts = [result.count for result in self if result.count is not None]
        parts = [f"{sum(counts)} objects in {len(self)} image{'' if len(self) == 1 else 's'}"]
        flagged = sum(bool(result.warnings) for result in self)
        parts += [f"{flagged} flagged"] if flagged else []
        parts += [f"{len(self.failed)} failed"] if self.failed else []
        names = ", ".join(f"{result.name} {'' if result.count is None else result.count}".strip() for result in self)
        summary = ", ".join(parts)
        return f"<{shorten(f'Results: {summary}; {names}', _LONGEST - 2)}>"

    def _repr_html_(self) -> str:
        return gallery(self)
