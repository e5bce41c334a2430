"""Several processes that train one model, each on its part of every batch, as ``torchrun`` starts them.

All take the same steps as one process with the whole batch: batch statistics and the sums of the loss are those of all
parts. The first process decides, validates, writes and shows; the others follow it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import timedelta
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from biounet.core import BiounetError, Launch, MachineError, SettingsError, Stopped, read_launch
from biounet.network import UNet, pick_device
from biounet.training.shared_batch_norm import share_batch_norms

_JOIN = timedelta(minutes=5)  # until the last process has started
_STEP = timedelta(minutes=30)  # for a part of a step, at the very most: a process that hangs ends all
_FOLLOW = timedelta(days=1)  # for what the first process does alone, such as tuning on many images
_REPORT = timedelta(seconds=10)
_LOST = ("gloo", "nccl", "connection", "socket")  # in messages of a torch that has lost another process


@dataclass(frozen=True)
class Processes:
    """The processes of a training, and which of them this one is; by default there is only this one."""

    launch: Launch = field(default_factory=Launch)
    device: str | None = None  # of this process; None: whatever is asked for
    control: Any = None  # the group in which the first process is waited for

    @property
    def size(self) -> int:
        """Number of processes."""
        return self.launch.size

    @property
    def is_first(self) -> bool:
        """Whether this process decides, validates, writes and shows."""
        return self.launch.rank == 0

    def part_of(self, batch: list[int]) -> list[int]:
        """Return the part of a batch that is this process's; parts differ by one at most."""
        if len(batch) < self.size:
            cause = f"a batch of {len(batch)} cannot be divided among {self.size} processes"
            raise SettingsError(cause, hint=f"start {len(batch)} at most, or raise train.batch")
        first, last = (len(batch) * rank // self.size for rank in (self.launch.rank, self.launch.rank + 1))
        return batch[first:last]

    def total(self, sums: Tensor) -> Tensor:
        """Return the sums over all processes of sums over a part, with gradient.

        What is computed from it has to be the same in all processes, such as the loss.
        """
        total: Tensor = sums if self.size == 1 else _Total.apply(sums, self.size)  # type: ignore[no-untyped-call]
        return total

    def gather(self, part: Tensor) -> Tensor:
        """Return the tensors of all processes, ``(n, …)``, with gradient."""
        if self.size == 1:
            return part[None]
        parts: Tensor = _Gather.apply(part, self.launch.rank, self.size)  # type: ignore[no-untyped-call]
        return parts

    def distribute(self, network: UNet) -> nn.Module:
        """Return what computes the same as a network in training, and shares gradients with the other processes."""
        if self.control is None:
            return network
        if self.size > 1:
            share_batch_norms(network, self.gather)
        return DistributedDataParallel(network)

    def decide(self, *values: float) -> tuple[float, ...]:
        """Return the values that the first process gives, in all processes."""
        if self.size == 1:
            return values
        decided = torch.tensor(values, dtype=torch.float64)
        dist.broadcast(decided, 0, group=self.control)
        return tuple(decided.tolist())

    def from_first(self, make: Callable[[], bytes]) -> bytes:
        """Return, in all processes, the bytes that the first process makes."""
        if self.size == 1:
            return make()
        content = make() if self.is_first else b""
        (length,) = self.decide(len(content))
        shared = torch.frombuffer(bytearray(content or int(length)), dtype=torch.uint8) if length else torch.empty(0)
        dist.broadcast(shared, 0, group=self.control)
        return shared.numpy().tobytes()


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, sums: Tensor, size: int) -> Tensor:  # noqa: ANN401
        ctx.size = size
        total = sums.detach().clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # noqa: ANN401
        # Each process computes the same loss from the total; the mean of gradients over processes, which DDP takes, is
        # then that of one loss only if each is that of all.
        return gradient * ctx.size, None


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, part: Tensor, rank: int, size: int) -> Tensor:  # noqa: ANN401
        ctx.rank = rank
        parts = part.new_empty(size, *part.shape)
        dist.all_gather(list(parts.unbind()), part.detach().contiguous())
        return parts

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401
        total = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total[ctx.rank], None, None


class join_processes(AbstractContextManager[Processes]):
    """Join the processes that a launcher has started with this one; without a launcher this one is alone.

    An error in one process ends all. It is raised in one of them; the others end silently, by `SystemExit`. A process
    that was killed is a `MachineError` in one of the others.

    Parameters
    ----------
    device
        ``auto``, ``cpu`` or ``cuda``: each process takes the GPU of its number on its machine.
    """

    def __init__(self, device: str = "auto") -> None:
        self.device = device
        self.store: Any = None

    def __enter__(self) -> Processes:
        """Wait for all processes; raise `MachineError` or `SettingsError` if they or their devices are not there."""
        launch = read_launch()
        if launch is None:
            return Processes()
        device = _own_device(self.device, launch)
        try:
            self.store, _, _ = next(rendezvous("env://", timeout=_JOIN))
            self.store.set_timeout(_JOIN)
            backend = "gloo" if device == "cpu" else "cpu:gloo,cuda:nccl"
            dist.init_process_group(backend, timeout=_STEP, world_size=launch.size, rank=launch.rank, store=self.store)
            control = dist.new_group(timeout=_FOLLOW, backend="gloo")
        except (RuntimeError, ValueError) as error:
            cause = f"process {launch.rank + 1} of {launch.size} cannot join the others: {_first_line(error)}"
            raise MachineError(cause, hint="start all with one torchrun") from error
        return Processes(launch, device, control)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the group; see the class for what becomes of an error."""
        if self.store is None:
            return
        if error is None:
            dist.destroy_process_group()
        elif isinstance(error, Exception) and not isinstance(error, Stopped):
            if not self._is_first_to_report():
                raise SystemExit(error.exit_code if isinstance(error, BiounetError) else MachineError.exit_code)
            if _is_lost_connection(error):
                cause = "another process of this training has ended, or does not answer"
                raise MachineError(cause, hint="its memory, or its machine; --resume continues") from error

    def _is_first_to_report(self) -> bool:
        """Whether no other process reports an error."""
        try:
            self.store.set_timeout(_REPORT)
            return bool(self.store.add("reported", 1) == 1)
        except RuntimeError:  # whoever held the store is gone
            return True


def _own_device(name: str, launch: Launch) -> str:
    """Return the device of this process, which no other one of the machine uses."""
    asked = pick_device(name)
    if asked.type == "cpu":
        return "cpu"
    own = f"cuda:{launch.local_rank}" if asked.index is None or launch.local_size > 1 else str(asked)
    if asked.index is not None and str(asked) != own:
        raise SettingsError(f"device {name!r} is one for {launch.local_size} processes", hint="--device cuda")
    there = torch.cuda.device_count()
    if launch.local_rank >= there:
        cause = f"{launch.local_size} processes, and {there} GPU{'s' if there > 1 else ''} on this machine"
        raise MachineError(cause, hint=f"--nproc_per_node {there}, or --device cpu")
    torch.cuda.set_device(own)
    return own


def _is_lost_connection(error: Exception) -> bool:
    return isinstance(error, RuntimeError) and any(word in str(error).lower() for word in _LOST)


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]
