"""Blocks on a GPU: some are copied there and back while another is computed, and threads label those that are done.

There is no thread of the device, and no queue: whichever thread needs the maps of a block takes one of a few *lanes*,
queues its copies and its network there, and waits. What is on its way is bounded by the lanes, an error is raised in
the thread of its image, and the order in which blocks come does not matter, since none shares a call of the network
with another: cuDNN may compute a batch otherwise than each of its blocks, and which blocks came together would depend
on time. Those who read images and label maps are as many threads as there are cores.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from biounet.core import MachineError, is_out_of_memory

_LANES = 3  # a block that is copied there, one that is computed, and one that is copied back
_log = logging.getLogger(__name__)

Compute = Callable[[Tensor], Sequence[Tensor]]
"""From an image on the device to arrays there; it must not wait for the device."""


class Lane(Protocol):
    """Where the copies and the computations of one block follow each other, beside those of other lanes."""

    def stage(self, image: NDArray[np.float32]) -> Tensor:
        """Return a copy of an image in memory that the device can read by itself."""

    def queue(self) -> AbstractContextManager[Any]:
        """Make the lane the one in which computations are queued."""

    def upload(self, staged: Tensor) -> Tensor:
        """Queue the copy of an image to the device."""

    def download(self, result: Tensor) -> Tensor:
        """Queue the copy of a result from the device; what is returned holds it after `wait`."""

    def wait(self) -> None:
        """Wait until all that was queued is done."""


class Device(Protocol):
    """What computes beside the threads of this process."""

    def lane(self) -> Lane:
        """Return a further lane."""

    def release_memory(self) -> None:
        """Give back memory of the device that no array holds."""


class CudaDevice:
    """A GPU: lanes are streams of CUDA."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def lane(self) -> Lane:  # noqa: D102 - of the protocol
        return _CudaLane(self.device)

    def release_memory(self) -> None:  # noqa: D102
        with torch.cuda.device(self.device):
            torch.cuda.empty_cache()


class _CudaLane:
    """A stream; its arrays are made and freed in its own order, so that none is used again too early."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self.stream.wait_stream(torch.cuda.current_stream(device))  # in which the weights were prepared

    def stage(self, image: NDArray[np.float32]) -> Tensor:
        staged = torch.empty(image.shape, dtype=torch.float32, pin_memory=True)
        return staged.copy_(torch.from_numpy(np.ascontiguousarray(image)))

    def queue(self) -> AbstractContextManager[Any]:
        context: AbstractContextManager[Any] = torch.cuda.stream(self.stream)  # and the device of the stream
        return context

    def upload(self, staged: Tensor) -> Tensor:
        return staged.to(self.device, non_blocking=True)

    def download(self, result: Tensor) -> Tensor:
        return torch.empty(result.shape, dtype=result.dtype, pin_memory=True).copy_(result, non_blocking=True)

    def wait(self) -> None:
        # Blocking: the thread sleeps, since cores have labels to find.
        event = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
        event.record(self.stream)
        event.synchronize()


class DevicePipeline:
    """The lanes of a device, which the threads of a process share; and what of its memory has run out.

    When it runs out, there is one lane instead of several; then blocks become smaller (`shrink`). What was found to fit
    is kept for the images that follow.

    Attributes
    ----------
    largest_block
        Edge of the largest blocks that fit; None: no block was too large.
    """

    def __init__(self, device: Device, lanes: int = _LANES) -> None:
        self.device = device
        self.largest_block: int | None = None
        self.is_given_up = False
        self._lanes = lanes
        self._idle: deque[Lane] = deque()
        self._busy = 0
        self._changed = threading.Condition()
        self._queueing = threading.Lock()

    def run(self, image: NDArray[np.float32], compute: Compute) -> tuple[tuple[NDArray[Any], ...], bool]:
        """Return what `compute` makes of an image, and whether it had to be alone on the device for it.

        Raises
        ------
        RuntimeError
            That `is_out_of_memory` if the block does not fit on the device even alone.
        MachineError
            If the device has failed, after which it computes nothing else in this process.
        """
        is_retried = False
        while True:
            with self._take() as (lane, is_alone):
                if is_retried:
                    self.device.release_memory()
                try:
                    return self._compute(lane, image, compute), is_retried
                except Exception as error:
                    if isinstance(error, torch.AcceleratorError) and not is_out_of_memory(error):
                        cause = f"the device failed: {str(error).strip().splitlines()[0]}"
                        hint = "the same command continues; --device cpu does without it"
                        raise MachineError(cause, hint=hint) from error
                    if is_alone or not is_out_of_memory(error):
                        raise
            self._narrow()  # after the except clause, where the error no longer refers to arrays on the device
            is_retried = True

    def shrink(self, edge: int) -> None:
        """Keep for later images that blocks of this edge fit, and larger ones do not."""
        with self._changed:
            if self.largest_block is None or edge < self.largest_block:
                self.largest_block = edge
                _log.warning("memory of the device ran out: blocks of %d from here on", edge)

    def give_up(self) -> None:
        """Keep for later images that no block fits."""
        with self._changed:
            if not self.is_given_up:
                self.is_given_up = True
                _log.warning("memory of the device ran out, also for the smallest blocks: on the CPU from here on")

    def _compute(self, lane: Lane, image: NDArray[np.float32], compute: Compute) -> tuple[NDArray[Any], ...]:
        staged = lane.stage(image)
        # One block after the other: two that are queued at the same time would both be late.
        with self._queueing, lane.queue(), torch.inference_mode():
            results = [lane.download(result) for result in compute(lane.upload(staged))]
        lane.wait()
        return tuple(result.numpy() for result in results)

    @contextmanager
    def _take(self) -> Iterator[tuple[Lane, bool]]:
        """Wait for a lane, and yield it and whether it is the only one."""
        with self._changed:
            self._changed.wait_for(lambda: self._busy < self._lanes)
            self._busy += 1
            lane, is_alone = self._idle.popleft() if self._idle else None, self._lanes == 1
        try:
            lane = lane or self.device.lane()
            yield lane, is_alone
        finally:
            with self._changed:
                self._busy -= 1
                if lane is not None:
                    self._idle.append(lane)
                self._changed.notify()

    def _narrow(self) -> None:
        """Let blocks be alone on the device from here on."""
        with self._changed:
            if self._lanes > 1:
                self._lanes = 1
                _log.warning("memory of the device ran out: one block at a time from here on")
