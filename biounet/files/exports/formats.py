"""The formats that results are exported to: what their files are called, and what writes them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import takewhile
from pathlib import Path

from biounet.core import InputError, SettingsError, free_memory, require_extra
from biounet.files.atomic import atomic_folder, atomic_group, atomic_path
from biounet.files.disk_arrays import is_mapped
from biounet.files.exports.bids import (
    DATASET_DESCRIPTION,
    bids_path,
    write_bids,
    write_bids_sidecar,
    write_dataset_description,
)
from biounet.files.exports.cellprofiler import merge_cellprofiler, merged_paths, write_cellprofiler
from biounet.files.exports.dicom_seg import write_dicom_labelmap, write_dicom_seg
from biounet.files.exports.labelled_image import ExportedImage, LabelledImage
from biounet.files.exports.lookup_tables import write_bids_table, write_fsleyes, write_itk_snap, write_slicer
from biounet.files.exports.ome_tiff import write_ome_tiff
from biounet.files.exports.ome_zarr import write_ome_zarr
from biounet.files.exports.tables import write_h5ad, write_parquet
from biounet.files.outlines.coco import write_coco, write_coco_polygons
from biounet.files.outlines.geojson import write_geojson, write_geojson_points
from biounet.files.outlines.imagej_roi import write_imagej_roi

_USABLE_SHARE = 0.8  # of free memory
Writer = Callable[[LabelledImage, Path], None]


@dataclass(frozen=True)
class ExportFormat:
    """A format of other programs.

    Attributes
    ----------
    name
        As users type it.
    suffix
        Of its files, after the name of the image.
    write
        Writes a `LabelledImage` to a temporary path, which does not exist before; an `InputError` if the format cannot
        hold it, whose hint names one that can.
    needs_image
        Whether the pixels of the image are in it, and not only labels and table.
    wants_image
        Whether the image is in it where it is still there.
    table_only
        Whether it is made of the table alone, so that labels need not be read.
    bytes_per_voxel
        Memory that writing it takes, measured; 0 of formats that large label images are written to strip by strip.
    is_folder
        Whether it is a folder and no file.
    also
        Suffixes of further files beside it, and what writes them.
    locate
        Where its file goes below the folder of all results, by the name of the image and without suffix; None: beside
        the label image.
    merge, merged
        Writes files about all images of a run below its folder, and the names of these files.
    package, extra
        What it needs beside the packages that biounet itself needs, and the extra of biounet that installs it.
    """

    name: str
    suffix: str
    write: Writer
    needs_image: bool = False
    is_folder: bool = False
    wants_image: bool = False
    table_only: bool = False
    bytes_per_voxel: int = 12
    also: tuple[tuple[str, Writer], ...] = ()
    locate: Callable[[str], str] | None = None
    merge: Callable[[Sequence[ExportedImage], Path], None] | None = None
    merged: tuple[str, ...] = ()
    package: str = ""
    extra: str = "export"

    def path(self, folder: Path, name: str) -> Path:
        """Return where the export of an image of this name goes, in a folder."""
        return self.paths(folder, name)[0]

    def paths(self, folder: Path, name: str) -> tuple[Path, ...]:
        """Return all files of the export of an image, of which the first is the one that opens in other programs."""
        stem = name if self.locate is None else self.locate(name)
        return tuple(folder / f"{stem}{suffix}" for suffix in (self.suffix, *(suffix for suffix, _ in self.also)))


COLUMNS = ("cellprofiler",)
"""Programs whose names and units the columns of a further table can have: formats that hold tables alone."""

# A new format is a line here.
FORMATS: tuple[ExportFormat, ...] = (
    ExportFormat("parquet", "_objects.parquet", write_parquet, table_only=True, bytes_per_voxel=0),
    ExportFormat("h5ad", "_objects.h5ad", write_h5ad, table_only=True, bytes_per_voxel=0, package="anndata"),
    ExportFormat("geojson", "_outlines.geojson", write_geojson, bytes_per_voxel=0),
    ExportFormat("geojson-points", "_points.geojson", write_geojson_points, bytes_per_voxel=0),
    ExportFormat("coco", "_coco.json", write_coco),
    ExportFormat("coco-polygons", "_coco_polygons.json", write_coco_polygons),
    ExportFormat("roi", "_rois.zip", write_imagej_roi, bytes_per_voxel=0),
    ExportFormat(
        "cellprofiler", "_cellprofiler.csv", write_cellprofiler, merge=merge_cellprofiler, merged=merged_paths()
    ),
    ExportFormat("ome-tiff", ".ome.tif", write_ome_tiff),
    ExportFormat(
        "bids",
        "_dseg.nii.gz",
        write_bids,
        also=(("_dseg.json", write_bids_sidecar), ("_dseg.tsv", write_bids_table)),
        locate=bids_path,
        merge=write_dataset_description,
        merged=(DATASET_DESCRIPTION,),
    ),
    ExportFormat("itk-snap", "_itksnap.txt", write_itk_snap),
    ExportFormat("slicer", "_slicer.ctbl", write_slicer),
    ExportFormat("fsleyes", "_fsleyes.lut", write_fsleyes),
    ExportFormat("dicom-seg", "_seg.dcm", write_dicom_seg, needs_image=True, package="highdicom", extra="dicom"),
    ExportFormat(
        "dicom-seg-labelmap",
        "_labelmap_seg.dcm",
        write_dicom_labelmap,
        needs_image=True,
        package="highdicom",
        extra="dicom",
    ),
    ExportFormat("ome-zarr", ".ome.zarr", write_ome_zarr, wants_image=True, is_folder=True),
)


def export_format_names() -> tuple[str, ...]:
    """Return the names of all formats."""
    return tuple(one.name for one in FORMATS)


def export_formats(names: Sequence[str]) -> tuple[ExportFormat, ...]:
    """Return the formats of these names, each once.

    Raise `SettingsError` for an unknown one, and for one that needs a package that is not installed.
    """
    known = {one.name: one for one in FORMATS}
    for name in names:
        if name not in known:
            near = get_close_matches(name, known, 1)
            hint = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(known)}"
            raise SettingsError(f"no export format is called '{name}'", hint=hint)
    chosen = tuple(known[name] for name in dict.fromkeys(names))
    for one in chosen:
        if one.package:
            require_extra(one.extra, one.package, one.name)
    return chosen


def split_formats(formats: str | Sequence[str], columns: str | None = None) -> tuple[str, ...]:
    """Return the names of formats, which may be one text with commas; raise `SettingsError` for an unknown one.

    `columns` is the program whose names and units a table is to have, which is a format as well.
    """
    if columns not in (None, *COLUMNS):
        raise SettingsError(f"there are no columns '{columns}'", hint=f"there are those of {', '.join(COLUMNS)}")
    names = formats.split(",") if isinstance(formats, str) else formats
    names = tuple(name for name in (str(name).strip().lower() for name in names) if name)
    names += () if columns is None else (columns,)
    export_formats(names)
    return tuple(dict.fromkeys(names))


def write_export(image: LabelledImage, export: ExportFormat, folder: Path) -> Path:
    """Write labels in a format of other programs; return the path, which appears whole or not at all.

    Raises
    ------
    InputError
        If the format cannot hold this image, or needs the image where it is not there.
    MachineError
        If the disk is full or the folder cannot be written to.
    """
    path, *others = export.paths(folder, image.name)
    _check_memory(image, export, path)
    if export.needs_image and image.image is None:
        cause = f"{export.name} needs the image, which is no longer where it was, or changed"
        raise InputError(cause, path=path, hint="put it back, or segment it again where it is now")
    if export.is_folder:
        with atomic_folder(path) as temporary:
            export.write(image, temporary)
        return path
    with _folders_of(path, folder), atomic_group() if others else nullcontext():
        for one, write in zip((path, *others), (export.write, *(write for _, write in export.also)), strict=True):
            with atomic_path(one) as temporary:
                write(image, temporary)
    return path


def _check_memory(image: LabelledImage, export: ExportFormat, path: Path) -> None:
    """Raise `InputError` if a label image that is not in memory is to be held there, and does not fit."""
    needed, free = export.bytes_per_voxel * image.labels.size, free_memory()
    if is_mapped(image.labels) and free is not None and needed > _USABLE_SHARE * free:
        sizes = f"about {needed / 2**30:.2g} GiB, and {free / 2**30:.2g} GiB are free"
        streamed = [one.name for one in FORMATS if not one.bytes_per_voxel]
        hint = f"of labels of any size there are {', '.join(streamed)}; and a label image in OME-Zarr opens as it is"
        raise InputError(
            f"{export.name} of {' x '.join(map(str, image.labels.shape))} pixels takes {sizes}", path=path, hint=hint
        )


@contextmanager
def _folders_of(path: Path, folder: Path) -> Iterator[None]:
    """Make the folders that a file lies in below one that is there; those that stay empty after an error go again."""
    below = list(takewhile(lambda parent: parent != folder, path.parents))
    if below:
        below[0].mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:  # raised again
        for parent in below:
            with suppress(OSError):  # it holds something else
                parent.rmdir()
        raise
