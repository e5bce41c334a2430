"""Segment a large image in a process of its own, which answers with the line of its record.

When memory runs out although it was estimated before, the system kills the largest process: one image fails.
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

from biounet.batch.process_image import BatchContext, segment_file
from biounet.batch.record_lines import decode_record, encode_record
from biounet.batch.records import BatchOptions, Record
from biounet.core import BiounetError, MachineError, Stopped, WorkerDiedError, stop_on_signals
from biounet.files import FoundImage, ReaderPool, ReadOptions, main_program, path_from_hex, path_to_hex, start_process
from biounet.network import load_model, model_predictor, save_model
from biounet.segmentation import SegmentOptions

_POLL = 0.1  # seconds between looks at the process
_STOP_TIMEOUT = 20.0  # seconds that it may take to finish its block when work is to stop
_PROGRAM = main_program("biounet.batch.own_process")


def segment_in_own_process(image: FoundImage, context: BatchContext, protected: Collection[Path]) -> Record:
    """Segment one image as `segment_file` does; `WorkerDiedError` when the process was killed."""
    with tempfile.TemporaryDirectory() as folder:
        answer_file, model_file = Path(folder, "answer"), Path(folder, "model.safetensors")
        save_model(context.model, model_file)
        child = start_process(_PROGRAM, "for a large image")
        pipe = cast(IO[bytes], child.stdin)
        try:
            files = {"model": path_to_hex(model_file), "answer": path_to_hex(answer_file)}
            request = _request(image, context, protected) | files
            with suppress(BrokenPipeError):  # it has ended, as its exit code tells
                pipe.write(json.dumps(request, default=np.generic.item).encode() + b"\n")
                pipe.flush()
            _wait(child, context)
            answer = json.loads(answer_file.read_bytes()) if answer_file.exists() else {}
        finally:
            child.kill()
            child.wait()
            with suppress(OSError):
                pipe.close()
    if "stopped" in answer:
        raise Stopped(str(answer["stopped"]))
    if "machine" in answer:
        raise MachineError(str(answer["machine"]), hint=answer["hint"])
    record = decode_record(str(answer.get("record")))
    if record is None:
        code = child.returncode
        how = f"signal {-code}, as by a machine that runs out of memory" if code < 0 else f"exit code {code}"
        raise WorkerDiedError(f"the process that worked on it was ended ({how})")
    return replace(record, model=context.model.sha256, settings=context.settings)


def _wait(child: subprocess.Popen[bytes], context: BatchContext) -> None:
    """Wait until the process has ended; ask it to end when `context.stop` is set."""
    while child.poll() is None:
        if context.stop.wait(_POLL):
            child.terminate()
            with suppress(subprocess.TimeoutExpired):
                child.wait(_STOP_TIMEOUT)
            if child.poll() is None:
                raise Stopped("a large image was left")


def _request(image: FoundImage, context: BatchContext, protected: Collection[Path]) -> dict[str, Any]:
    options = context.options
    paths = (image.path, *image.others)
    # A working folder may have been removed, which is no matter where all paths are absolute.
    absolute = all(path.is_absolute() for path in (*paths, context.out, *protected))
    return {
        "folder": None if absolute else path_to_hex(Path.cwd()),
        "image": [path_to_hex(path) for path in paths],
        "relative": path_to_hex(image.relative),
        "channels": image.channels,
        "scene": image.scene,
        "protected": [path_to_hex(path) for path in protected],
        "out": path_to_hex(context.out),
        "read": asdict(options.read),
        "segment": options.segment.as_dict(),
        "options": {"device": options.device, "jobs": 1, "overlay": options.overlay, "excel": options.excel},
        "threads": context.threads,
    }


def main() -> None:
    """Answer the one request on the standard input; exit at once when that is closed."""
    request = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    if request["folder"] is not None:
        os.chdir(path_from_hex(request["folder"]))
    with stop_on_signals() as stop, ReaderPool(1) as readers:
        try:
            answer = {"record": encode_record(_segment(request, stop, readers))}
        except Stopped as error:
            answer = {"stopped": error.cause}
        except BiounetError as error:
            answer = {"machine": str(error), "hint": error.hint or ""}
    path_from_hex(request["answer"]).write_text(json.dumps(answer), encoding="utf-8")


def _exit_with_parent() -> None:
    """Exit when the process that started this one has ended: its end of the pipe is closed then."""
    sys.stdin.buffer.read()
    os._exit(1)


def _segment(request: dict[str, Any], stop: threading.Event, readers: ReaderPool) -> Record:
    segment = SegmentOptions.from_dict(request["segment"])
    options = BatchOptions(read=ReadOptions(**request["read"]), segment=segment, **request["options"])
    model = load_model(path_from_hex(request["model"]))
    predictor, out = model_predictor(model, options.device), path_from_hex(request["out"])
    context = BatchContext(model, predictor, out, options, request["threads"], stop, readers)
    first, *others = map(path_from_hex, request["image"])
    names = {"channels": tuple(request["channels"]), "scene": request["scene"]}
    image = FoundImage(first, path_from_hex(request["relative"]), tuple(others), **names)
    return segment_file(image, context, [path_from_hex(path) for path in request["protected"]])
