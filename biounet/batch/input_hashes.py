"""The files of a large image are hashed in a thread while it is worked on."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from threading import Event
from typing import TypeVar

from biounet.core import raise_if_stopped
from biounet.files import FileState, FoundImage, image_state

_POLL = 0.1  # seconds between looks whether work is to stop

T = TypeVar("T")
HashUntil = Callable[[Path, str, Event], str]
"""What returns the SHA-256 of an image by its path and scene, or raises `Stopped` when the event is set."""


def work_while_hashed(
    image: FoundImage, hash_file: HashUntil, stop: Event, work: Callable[[], T]
) -> tuple[T, tuple[FileState, ...]]:
    """Work on an image while its files are hashed; return what that gives, and the states of the files.

    When the work fails, or is stopped, the hash is given up: that of a large file may take hours, and nobody needs it.
    """
    given_up = Event()  # not `stop`, which is that of all images
    with ThreadPoolExecutor(1, "biounet-hash") as pool:
        try:
            hashes = [pool.submit(hash_file, path, scene, given_up) for path, scene in image.parts]
            states = [image_state(*part) for part in image.parts]
            result = work()
            sha256 = [_result_unless_stopped(each, stop) for each in hashes]
        finally:
            given_up.set()
            pool.shutdown(wait=False, cancel_futures=True)
    return result, tuple(FileState(*state, each) for state, each in zip(states, sha256, strict=True))


def _result_unless_stopped(future: Future[T], stop: Event) -> T:
    while not wait([future], _POLL).done:
        raise_if_stopped(stop)
    return future.result()
