"""A large image in a process of its own: should the machine run out of memory and end it, one image fails.

The estimate of its memory decided before, but other programs may take what was free, and then the machine ends the
largest process. That is this one, and not the one that has all other images to do. It gets the model as a file, and
answers with the record of the image as text.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Collection
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from biounet.batch.manifest import record_of_line, record_to_line
from biounet.batch.process_image import BatchContext, segment_file
from biounet.batch.records import BatchOptions, Record
from biounet.core import BiounetError, LabelSettings, MachineError, Stopped, WorkerDiedError
from biounet.files import FoundImage, ReaderPool, ReadOptions, main_program, path_from_hex, path_to_hex, start_process
from biounet.network import load_model, model_predictor, save_model
from biounet.segmentation import SegmentOptions

_LOOK = 0.1  # seconds between looks at the process
_LONGEST = 20.0  # seconds that it may take to come to its next block when work is to end
_PROGRAM = main_program("biounet.batch.own_process")


def segment_apart(image: FoundImage, run: BatchContext, kept: Collection[Path]) -> Record:
    """Segment one file as `biounet.batch.segment_file` does, in a process of its own.

    Raises
    ------
    EndedError
        If the process was ended.
    MachineError
        If its outputs cannot be written, or no process can be started.
    Stopped
        If work is to end.
    """
    with tempfile.TemporaryDirectory() as folder:
        answer, model = Path(folder, "answer"), Path(folder, "model.safetensors")
        save_model(run.model, model)
        child = _start()
        try:
            request = _request(image, run, kept) | {"model": path_to_hex(model), "answer": path_to_hex(answer)}
            with suppress(BrokenPipeError):  # it has ended, which its code tells
                cast(IO[bytes], child.stdin).write(json.dumps(request, default=np.generic.item).encode() + b"\n")
                cast(IO[bytes], child.stdin).flush()
            _wait(child, run)
            said = json.loads(answer.read_bytes()) if answer.exists() else {}
        finally:
            child.kill()
            child.wait()
            with suppress(OSError):
                cast(IO[bytes], child.stdin).close()
    if "stopped" in said:
        raise Stopped(str(said["stopped"]))
    if "machine" in said:
        raise MachineError(str(said["machine"]), hint=said["hint"])
    record = record_of_line(str(said.get("record")))
    if record is None:
        code = child.returncode
        how = f"signal {-code}, as by a machine that runs out of memory" if code < 0 else f"exit code {code}"
        raise WorkerDiedError(f"the process that worked on it was ended ({how})")
    return replace(record, model=run.model.sha256, settings=run.settings)


def _start() -> subprocess.Popen[bytes]:
    return start_process(_PROGRAM, "for a large image")


def _wait(child: subprocess.Popen[bytes], run: BatchContext) -> None:
    """Wait for the end of the process, and ask it to end when work is to end."""
    while child.poll() is None:
        if run.stop.wait(_LOOK):
            child.terminate()
            with suppress(subprocess.TimeoutExpired):
                child.wait(_LONGEST)
            if child.poll() is None:
                raise Stopped("a large image was left")


def _request(image: FoundImage, run: BatchContext, kept: Collection[Path]) -> dict[str, Any]:
    options, label = run.options, run.options.segment.label
    return {
        "folder": None if _are_absolute(image, run, kept) else path_to_hex(Path.cwd()),
        "image": [path_to_hex(path) for path in (image.path, *image.others)],
        "relative": path_to_hex(image.relative),
        "kept": [path_to_hex(path) for path in kept],
        "out": path_to_hex(run.out),
        "read": asdict(options.read),
        "block": options.segment.block,
        "diameter": options.segment.diameter,
        "label": None if label is None else label.model_dump(mode="json"),
        "plain": {"device": options.device, "jobs": 1, "overlay": options.overlay, "excel": options.excel},
        "threads": run.threads,
    }


def _are_absolute(image: FoundImage, run: BatchContext, kept: Collection[Path]) -> bool:
    """Whether the folder that this process runs in does not matter: it may have been removed."""
    return all(path.is_absolute() for path in (image.path, *image.others, run.out, *kept))


def main() -> None:
    """Answer the one request that stands on the standard input; end at once when that ends."""
    from biounet.core import stop_on_signals

    request = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_end_with_input, daemon=True).start()
    if request["folder"] is not None:
        os.chdir(path_from_hex(request["folder"]))
    with stop_on_signals() as stop, ReaderPool(1) as readers:
        try:
            said = {"record": record_to_line(_segment(request, stop, readers))}
        except Stopped as error:
            said = {"stopped": error.cause}
        except BiounetError as error:
            said = {"machine": str(error), "hint": error.hint or ""}
    path_from_hex(request["answer"]).write_text(json.dumps(said), encoding="utf-8")


def _end_with_input() -> None:
    """End when the process that started this one has: its end of the pipe is closed then."""
    sys.stdin.buffer.read()
    os._exit(1)


def _segment(request: dict[str, Any], stop: threading.Event, readers: ReaderPool) -> Record:
    label = request["label"]
    known = None if label is None else LabelSettings.model_validate(label)
    chain = SegmentOptions(block=request["block"], diameter=request["diameter"], label=known)
    options = BatchOptions(read=ReadOptions(**request["read"]), segment=chain, **request["plain"])
    model = load_model(path_from_hex(request["model"]))
    predictor, out = model_predictor(model, options.device), path_from_hex(request["out"])
    run = BatchContext(model, predictor, out, options, request["threads"], stop, readers)
    first, *others = map(path_from_hex, request["image"])
    image = FoundImage(first, path_from_hex(request["relative"]), tuple(others))
    return segment_file(image, run, [path_from_hex(path) for path in request["kept"]])
