"""Segment a large image in a process of its own, which answers with the line of its record.

When memory runs out although it was estimated before, the system kills the largest process: one image fails. So does
one whose process gives no sign of life. What it has done of an image in super-blocks stays for the next run.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Collection
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from biounet.batch.large_image import find_large, segment_share
from biounet.batch.parts_done import PartsDone, ShowParts
from biounet.batch.process_image import BatchContext, block_threads, segment_file
from biounet.batch.record_lines import decode_record, encode_record
from biounet.batch.records import BatchOptions, Record, error_text
from biounet.core import (
    BiounetError,
    InputError,
    MachineError,
    Stopped,
    WorkerDiedError,
    format_seconds,
    stop_on_signals,
)
from biounet.files import FoundImage, ReaderPool, ReadOptions, main_program, path_from_hex, path_to_hex, start_process
from biounet.network import load_model, model_predictor, save_model
from biounet.segmentation import SegmentOptions

_POLL = 0.1  # seconds between looks at the process
_STOP_TIMEOUT = 20.0  # seconds that it may take to finish its block when work is to stop
# Seconds without a sign of life; between two of them is a part of an image, or a file that is written.
_SILENCE = 3600.0
_SIGN_EVERY = 1.0  # seconds
_PROGRAM = main_program("biounet.batch.own_process")
_OPTIONS = ("device", "overlay", "excel", "overwrite", "ram", "label_format", "cluster", "shard")
_CONTINUES = "the same command continues: what is done stays"


def segment_in_own_process(image: FoundImage, context: BatchContext, protected: Collection[Path]) -> Record:
    """Segment one image as `segment_file` does.

    Raises
    ------
    WorkerDiedError
        If the process was killed, or gave no sign of life.
    """
    answer, end = _ask(_request(image, context, protected), context)
    record = decode_record(str(answer.get("record")))
    if record is None:
        raise WorkerDiedError(f"the process that worked on it was ended ({end})", hint=_hint(image, context))
    return replace(record, model=context.model.sha256, settings=context.settings)


def segment_share_in_own_process(image: FoundImage, context: BatchContext) -> int:
    """Do this shard's part of a large image as `segment_share` does; errors as of `segment_in_own_process`."""
    answer, end = _ask(_request(image, context, ()) | {"share": True}, context)
    if "input" in answer:
        raise InputError(str(answer["input"]))
    if "left" not in answer:
        raise WorkerDiedError(f"the process that worked on it was ended ({end})", hint=_CONTINUES)
    return int(answer["left"])


def _hint(image: FoundImage, context: BatchContext) -> str | None:
    """Return what to do about a process that was ended, where something of its work may be left."""
    with suppress(BiounetError):
        return None if find_large(image, context.model, context.options) is None else _CONTINUES
    return None


def _ask(request: dict[str, Any], context: BatchContext) -> tuple[dict[str, Any], str]:
    """Return the answer of a process, empty if there is none, and how the process ended."""
    with tempfile.TemporaryDirectory() as folder:
        answer_file, sign, model_file = (Path(folder, name) for name in ("answer", "sign", "model.safetensors"))
        save_model(context.model, model_file)
        sign.touch()
        child = start_process(_PROGRAM, "for a large image")
        pipe = cast(IO[bytes], child.stdin)
        try:
            files = {"model": path_to_hex(model_file), "answer": path_to_hex(answer_file), "sign": path_to_hex(sign)}
            with suppress(BrokenPipeError):  # it has ended, as its exit code tells
                pipe.write(json.dumps(request | files, default=np.generic.item).encode() + b"\n")
                pipe.flush()
            end = _wait(child, context, _Signs(sign, context.show_parts))
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
    return answer, end


@dataclass
class _Signs:
    """The signs of life of a process: a file that it touches, and that holds how far its work is."""

    path: Path
    show: ShowParts
    changed: int = 0
    last: float = field(default_factory=time.monotonic)
    shown: PartsDone | None = None

    def look(self) -> float:
        """Show what is new; return for how many seconds there has been no sign."""
        with suppress(OSError):
            changed = self.path.stat().st_mtime_ns
            if changed != self.changed:
                self.changed, self.last = changed, time.monotonic()
                self._show(self.path.read_bytes())
        return time.monotonic() - self.last

    def _show(self, content: bytes) -> None:
        parts = PartsDone(**json.loads(content)) if content else None
        if parts is not None and parts != self.shown:
            self.shown = parts
            self.show(parts)


def _wait(child: subprocess.Popen[bytes], context: BatchContext, signs: _Signs) -> str:
    """Wait until the process has ended, and say how; ask it to end when `context.stop` is set."""
    while child.poll() is None:
        if context.stop.wait(_POLL):
            child.terminate()
            with suppress(subprocess.TimeoutExpired):
                child.wait(_STOP_TIMEOUT)
            if child.poll() is None:
                raise Stopped("a large image was left")
        elif signs.look() > _SILENCE:
            return f"it gave no sign of life for {format_seconds(_SILENCE)}"
    code = child.returncode
    return f"signal {-code}, as by a machine that runs out of memory" if code < 0 else f"exit code {code}"


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
        "options": {name: getattr(options, name) for name in _OPTIONS} | {"jobs": 1},
        "threads": context.threads,
        "sha256": context.model.sha256,
        "share": False,
    }


def main() -> None:
    """Answer the one request on the standard input; exit at once when that is closed."""
    request = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    if request["folder"] is not None:
        os.chdir(path_from_hex(request["folder"]))
    sign = path_from_hex(request["sign"])
    with stop_on_signals() as asked, ReaderPool(1) as readers:
        try:
            answer = _answer(request, _LivingStop(asked, sign), readers)
        except Stopped as error:
            answer = {"stopped": error.cause}
        except InputError as error:  # of a share; that of a whole image is in its record
            answer = {"input": error_text(error)}
        except BiounetError as error:
            answer = {"machine": str(MachineError(error.cause, path=error.path)), "hint": error.hint or ""}
    path_from_hex(request["answer"]).write_text(json.dumps(answer), encoding="utf-8")


def _exit_with_parent() -> None:
    """Exit when the process that started this one has ended: its end of the pipe is closed then."""
    sys.stdin.buffer.read()
    os._exit(1)


class _LivingStop(threading.Event):
    """The event that is set when work is to stop; whoever asks for it is alive, and says so in a file."""

    def __init__(self, asked: threading.Event, sign: Path) -> None:
        super().__init__()
        self._asked, self._sign, self._next = asked, sign, 0.0

    def is_set(self) -> bool:
        self._say()
        return self._asked.is_set()

    def set(self) -> None:
        self._asked.set()

    def wait(self, timeout: float | None = None) -> bool:
        self._say()
        return self._asked.wait(timeout)

    def _say(self) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + _SIGN_EVERY
            with suppress(OSError):
                os.utime(self._sign)


def _say_parts(sign: Path) -> ShowParts:
    """Return a function that writes how far the work is, for the process that waits."""
    said = [0.0]

    def say(parts: PartsDone) -> None:
        if parts.done < parts.total and time.monotonic() < said[0] + _POLL:
            return  # to write it takes longer than an empty part
        said[0] = time.monotonic()
        temporary = sign.with_suffix(".new")
        with suppress(OSError):  # the folder of a process that has ended
            temporary.write_text(json.dumps(asdict(parts)), encoding="utf-8")
            temporary.replace(sign)

    return say


def _answer(request: dict[str, Any], stop: threading.Event, readers: ReaderPool) -> dict[str, Any]:
    segment, given = SegmentOptions.from_dict(request["segment"]), dict(request["options"])
    shard = given.pop("shard")
    say = _say_parts(path_from_hex(request["sign"]))
    options = BatchOptions(
        ReadOptions(**request["read"]), segment, **given, shard=None if shard is None else tuple(shard), on_parts=say
    )
    # The file is written anew for this process; the model is the one that the batch has.
    model = replace(load_model(path_from_hex(request["model"])), file_sha256=request["sha256"])
    predictor, out = model_predictor(model, options.device), path_from_hex(request["out"])
    first, *others = map(path_from_hex, request["image"])
    names = {"channels": tuple(request["channels"]), "scene": request["scene"]}
    image = FoundImage(first, path_from_hex(request["relative"]), tuple(others), **names)
    if request["share"]:
        large = find_large(image, model, options)
        return {"left": 0 if large is None else segment_share(large, model, out, options, stop)}
    with block_threads(predictor) as executor:
        context = BatchContext(model, predictor, out, options, request["threads"], stop, readers, executor=executor)
        protected = [path_from_hex(path) for path in request["protected"]]
        return {"record": encode_record(segment_file(image, context, protected))}
