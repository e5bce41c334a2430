"""A device that is none: it computes on the CPU, its copies are complete when they are waited for, its memory is small.

A block takes time on the way there, in the network and on the way back, on engines that do one thing at a time. The
clock is of these alone: it says what overlapped, however busy the machine is that runs the test.
"""

import threading
from collections import defaultdict, deque
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch

from biounet.network import make_predictor, model_predictor
from biounet.network.device_pipeline import DevicePipeline

NOT_THERE = 0x5A  # in each byte of a copy that nobody has waited for
_PATIENCE = 20.0  # seconds that a block waits for another one before the test fails


@dataclass
class FakeDevice:
    """Scripted: how long each engine takes for a block, how many values fit, and which blocks fail.

    Attributes
    ----------
    seconds
        Of upload, computation and download of a block, on the device's own clock.
    values
        Most values of images on the device at the same time; None: any number.
    errors
        By the number of a block, from 0 in the order of upload: what its computation raises.
    depends_on_shape
        Whether all values differ a little by the shapes of a block and its result, as when a GPU chooses another order
        of its sums.
    together
        Blocks that have to be on their way at the same time before the first of them ends, as long as so many are left
        of `expected`: without overlap the test fails.
    """

    seconds: tuple[float, float, float] = (1.0, 1.0, 1.0)
    values: int | None = None
    errors: dict = field(default_factory=dict)
    depends_on_shape: bool = False
    together: int = 1
    expected: int = 0
    uploads: int = 0
    lanes: int = 0
    most_together: int = 0
    releases: int = 0
    used: int = 0
    on_their_way: int = 0
    engines: defaultdict = field(default_factory=lambda: defaultdict(float))
    changed: threading.Condition = field(default_factory=threading.Condition)
    _now: threading.local = field(default_factory=threading.local)

    def lane(self):
        with self.changed:
            self.lanes += 1
        return FakeLane(self)

    def release_memory(self):
        with self.changed:
            self.releases += 1

    @property
    def elapsed(self):
        """Until the last engine is idle."""
        return max(self.engines.values(), default=0.0)

    @property
    def busy(self):
        """The same without any overlap."""
        return self.uploads * sum(self.seconds)

    def enter(self, size):
        with self.changed:
            if self.values is not None and self.used + size > self.values:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate, as scripted")
            number, self.uploads = self.uploads, self.uploads + 1
            self.used += size
            self.on_their_way += 1
            self.most_together = max(self.most_together, self.on_their_way)
            self.changed.notify_all()
        return number

    def leave(self, size):
        with self.changed:
            self.used -= size
            self.on_their_way -= 1
            self.changed.notify_all()

    def meet_others(self):
        """Wait until so many blocks are on their way as have to be."""

        def is_met():
            return self.most_together >= self.together or self.uploads >= self.expected

        with self.changed:
            if not self.changed.wait_for(is_met, _PATIENCE):
                raise AssertionError(f"{self.most_together} blocks on their way, and not {self.together}")

    def run_engines(self, since):
        """Return when a block is done that comes at a time."""
        with self.changed:
            for engine, seconds in enumerate(self.seconds):
                self.engines[engine] = since = max(since, self.engines[engine]) + seconds
        return since

    @property
    def now(self):
        """The time of this thread: when its last block was done."""
        return getattr(self._now, "value", 0.0)

    @now.setter
    def now(self, value):
        self._now.value = value


class FakeLane:
    """A lane of a fake device; what is asked for in another order than the law has it fails."""

    def __init__(self, device):
        self.device = device
        self.pending = deque()
        self.size, self.shape = 0, ()
        self.is_queued = False

    def stage(self, image):
        return torch.from_numpy(image.copy())

    @contextmanager
    def queue(self):
        self.is_queued, self.size = True, 0
        try:
            yield
        except BaseException:
            self.pending.clear()
            self._leave()
            raise
        finally:
            self.is_queued = False

    def _leave(self):
        if self.size:
            self.device.leave(self.size)
        self.size = 0

    def upload(self, staged):
        assert self.is_queued, "copied outside of the lane"
        number = self.device.enter(staged.numel())
        self.size, self.shape = staged.numel(), tuple(staged.shape)
        if number in self.device.errors:
            raise self.device.errors[number]
        there, sent = staged.clone(), staged.clone()
        self.pending.append(lambda: torch.equal(staged, sent) or there.fill_(0))  # changed before it was copied
        return there

    def download(self, result):
        assert self.is_queued, "copied outside of the lane"
        here = torch.empty_like(result)
        here.view(torch.uint8).fill_(NOT_THERE) if here.ndim else here.fill_(True)
        self.pending.append(lambda: here.copy_(self._computed(result)))
        return here

    def _computed(self, result):
        if not self.device.depends_on_shape or not result.ndim:
            return result
        shift = (hash((self.shape, tuple(result.shape))) % 61 - 30) * 2
        return ((result.to(torch.int32) & 0xFFFF) + shift).clamp(0, 0xFFFF).to(torch.int16)

    def wait(self):
        self.device.meet_others()
        with torch.inference_mode():
            while self.pending:
                self.pending.popleft()()
        self.device.now = self.device.run_engines(self.device.now)
        self._leave()


def on_fake_device(predictor, device, substitute=None, lanes=3):
    """Return a predictor of the CPU as one of a device."""
    pipeline = DevicePipeline(device, lanes)
    return replace(predictor, pipeline=pipeline, make_substitute=lambda: substitute or predictor)


def float_predictor(model, device=None, lanes=3):
    """Return the predictor of a model in floating point, as on a GPU, whose substitute is that of this CPU."""
    plain = make_predictor(model.network, "cpu", softmax=model.card.recipe.data.exclusive)
    return plain if device is None else on_fake_device(plain, device, model_predictor(model, "cpu"), lanes)
