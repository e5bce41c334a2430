"""Commands that write results and models in the formats of other programs."""

# The parameters of a command are its options.
# ruff: noqa: PLR0913
from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from biounet.cli import options
from biounet.cli.terminal import echo, echo_error, echo_json, say_loading, stoppable
from biounet.core import MachineError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from biounet.batch import ExportRow

Exported = Annotated[
    str,
    typer.Argument(help="Folder of results; or a model, by its built-in name or path.", metavar="OUT|MODEL"),
]
Formats = Annotated[
    str | None,
    typer.Option(
        "--format",
        "-f",
        help="Formats, several with commas. Outlines: roi, geojson, geojson-points, coco, coco-polygons. Labels:"
        " ome-zarr, ome-tiff, bids, dicom-seg, dicom-seg-labelmap. Their names and colours: itk-snap, slicer, fsleyes."
        " Tables: parquet, h5ad, cellprofiler. Models: onnx, onnx-int8, bioimageio.",
        show_default=False,
    ),
]
ModelFile = Annotated[
    Path | None,
    typer.Option("--out", "-o", help="File of the exported model.", show_default="the name of the model"),
]
Overwrite = Annotated[
    bool,
    typer.Option("--overwrite", help="Replace files of these names that biounet did not write, or somebody changed."),
]


def export(
    source: Exported,
    formats: Formats = None,
    out: ModelFile = None,
    columns: options.Columns = None,
    overwrite: Overwrite = False,
    quiet: options.Quiet = False,
    json_lines: options.Json = False,
) -> None:
    """Write results, or a model, in the formats of other programs."""
    from biounet.files import split_formats
    from biounet.model_export import MODEL_FORMATS

    is_model = _is_model(source)
    formats = _with_columns(formats, columns, "onnx" if is_model else "roi,parquet")
    if not is_model and not Path(source).is_dir() and any(name in MODEL_FORMATS for name in formats.split(",")):
        raise MachineError("neither a folder of results nor a built-in model", path=source, hint="see 'biounet models'")
    _check_formats(source, formats, is_model)
    if is_model:
        code = export_models(source, formats, out, overwrite=overwrite, quiet=quiet, json_lines=json_lines)
    elif out is not None:
        cause = f"{source} is a folder of results, whose exports are written into it"
        raise SettingsError(cause, hint="--out is for models only")
    else:
        names = split_formats(formats)
        code = export_results(Path(source), names, overwrite=overwrite, quiet=quiet, json_lines=json_lines)
    raise typer.Exit(code)


def _with_columns(formats: str | None, columns: str | None, example: str) -> str:
    """Return all that is to be exported; raise `SettingsError` if that is nothing."""
    from biounet.files import split_formats

    names = split_formats((), columns) if columns is not None else ()
    if not formats and not names:
        raise SettingsError("nothing to export", hint=f"name formats, such as --format {example}; --help lists them")
    return ",".join([*([formats] if formats else []), *names])


def _is_model(source: str) -> bool:
    """Whether a model is meant, and no folder of results; a folder wins over a built-in name."""
    from biounet.core import builtin_models

    return not Path(source).is_dir() and (source in builtin_models() or Path(source).suffix == ".safetensors")


def _check_formats(source: str, formats: str, is_model: bool) -> None:
    """Raise `SettingsError` for a format of models that is asked of results, or the other way round."""
    from biounet.files import export_format_names
    from biounet.model_export import MODEL_FORMATS

    of_results, of_models = export_format_names(), tuple(MODEL_FORMATS)
    names = [name.strip().lower() for name in formats.split(",")]
    wrong = next((name for name in names if name in (of_results if is_model else of_models)), None)
    if wrong:
        kinds = ("results", "models", "a model") if is_model else ("models", "results", "a folder of results")
        there = ", ".join(of_models if is_model else of_results)
        cause = f"'{wrong}' is a format of {kinds[0]}, and {source} is {kinds[2]}"
        raise SettingsError(cause, hint=f"of {kinds[1]} there are {there}")


def export_results(
    out: Path, formats: Sequence[str], *, overwrite: bool = False, quiet: bool = False, json_lines: bool = False
) -> int:
    """Export a folder of results, show what became of it and return the exit code."""
    from biounet.batch import describe_exports, export_exit_code, export_run

    def show(row: ExportRow) -> None:
        if json_lines:
            echo_json(vars(row))
        elif row.status == "failed":
            echo_error(f"{row.image or row.path} as {row.format}: {row.message}")

    with stoppable("continues") as stop:
        rows = export_run(out, formats, show, overwrite=overwrite, stop=stop)
    if not quiet and not json_lines:
        echo(f"{describe_exports(rows)}; see {out}/")
    return export_exit_code(rows)


def export_models(
    model: str,
    formats: str,
    out: Path | None = None,
    *,
    overwrite: bool = False,
    quiet: bool = False,
    json_lines: bool = False,
) -> int:
    """Export a model in some formats, show how far each is from it and return the exit code."""
    from biounet.model_export import split_model_formats

    names = split_model_formats(formats)
    if out is not None and len(names) > 1:
        raise SettingsError("--out names one file, and there are several formats", hint="each has a name without it")
    say_loading(model, quiet or json_lines)
    from biounet.api import load

    segmenter = load(model)
    for name in names:
        written = segmenter.export(name, out, overwrite=overwrite)
        if json_lines:
            echo_json({"model": model, "format": name, "path": str(written.path), **vars(written.parity)})
        elif not quiet:
            echo(f"{written.path}: {written.parity}")
    return 0
