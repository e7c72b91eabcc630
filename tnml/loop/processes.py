"""One run in several processes: which there are, which samples each takes, and how they stay equal.

Fabric gives the device, the precision and the process group. The gradients are summed here and not by
`DistributedDataParallel`, which forbids `torch.autograd.grad` inside a loss and several forward passes per
step (losses of differential equations do both) and weighs all processes alike even where one has fewer
samples.

There are two ways to run several processes. Under `torchrun` every process exists already and joins its
group. In any other program `launch` starts them with the "spawn" method: it works from a command, a library
call and a test run alike, and needs neither a re-run of the user's script nor a fork of a process whose
threads are already running.
"""

import atexit
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Literal, TypeVar

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from torch import Tensor

from tnml.errors import InputError
from tnml.loop.loggers import quiet
from tnml.loop.options import LoopOptions
from tnml.loop.protocols import Batch
from tnml.randomness import part_of_batch

T = TypeVar("T")

_PRECISIONS: dict[str, Literal["32-true", "64-true", "bf16-mixed"] | None] = {
    "auto": None,
    "32": "32-true",
    "64": "64-true",
    "bf16-mixed": "bf16-mixed",
}
_LOGGERS = ("lightning_fabric", "lightning_utilities.core.rank_zero", "lightning_fabric.utilities.rank_zero")


def started_outside() -> bool:
    """Whether a launcher such as torchrun started this process as one of a group.

    Example:
        >>> started_outside()
        False
    """
    return dist.is_available() and dist.is_torchelastic_launched()


def is_main_process() -> bool:
    """Whether this process is the one that prints and writes files: rank 0, or the only one.

    Example:
        >>> is_main_process()
        True
    """
    return not started_outside() or int(os.environ.get("RANK", "0")) == 0


def device_of(name: str) -> torch.device:
    """The device that the option `device` means here; its index is 0 where none is given.

    Raises:
        InputError: CUDA is asked for and not available, or there are not that many devices.

    Example:
        >>> device_of("cpu")
        device(type='cpu')
    """
    asked = name
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cpu":
        return torch.device("cpu")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    index = int(name.partition(":")[2] or 0)
    if index >= count:
        raise InputError(f"device {asked!r} needs CUDA device {index}, this machine shows {count}; use 'cpu'")
    return torch.device("cuda", index)


def open_fabric(options: LoopOptions, joined: bool) -> Fabric:
    """A Fabric for this process, its process group ready; silent.

    Args:
        options: device, devices and precision are read.
        joined: whether this process is one of a group, its place given by the environment.

    Raises:
        InputError: the device is not available, or not that many of them.
    """
    device = device_of(options.device)
    precision = _PRECISIONS[options.precision]
    with quiet(*_LOGGERS):
        if not joined:
            index = 1 if device.type == "cpu" else [device.index]
            return Fabric(
                accelerator=device.type, devices=index, precision=precision, plugins=[LightningEnvironment()]
            )
        here, world = (int(os.environ[name]) for name in ("LOCAL_WORLD_SIZE", "WORLD_SIZE"))
        if options.devices not in (1, world):
            raise InputError(
                f"devices is {options.devices} but the launcher started {world} processes; leave it out"
            )
        if device.type == "cuda" and here > torch.cuda.device_count():
            raise InputError(f"{here} processes need as many CUDA devices, got {torch.cuda.device_count()}")
        fabric = Fabric(
            accelerator=device.type,
            devices=here,
            num_nodes=world // here,
            strategy="ddp",
            precision=precision,
            plugins=[TorchElasticEnvironment()],
        )
        if not dist.is_initialized():
            atexit.register(_leave_group)
        fabric.launch()
        return fabric


def _leave_group() -> None:
    """At exit: a group that is still open can abort the interpreter while its threads are taken down."""
    if dist.is_initialized():
        dist.destroy_process_group()


class Group:
    """The processes of a run, as the loop sees them; with one process no method costs anything.

    Args:
        fabric: from `open_fabric`.
    """

    def __init__(self, fabric: Fabric) -> None:
        self.rank = fabric.global_rank
        self.size = fabric.world_size
        self._fabric = fabric

    def part(self, batch: tuple[Tensor, ...] | Batch) -> tuple[tuple[Tensor, ...] | Batch, int, int]:
        """This process's samples of the batch, how many these are, and how many all processes have together.

        The first axis of every tensor is cut into contiguous parts that differ by at most one sample; the
        first process always has one. An empty batch counts as one sample in each process.
        """
        if batch == ():
            return batch, 1, self.size
        total = (batch.x if isinstance(batch, Batch) else batch[0]).shape[0]
        if self.size == 1:
            return batch, total, total
        start, stop = self._first(self.rank, total), self._first(self.rank + 1, total)
        if isinstance(batch, Batch):
            return batch.each(lambda t: t[start:stop]), stop - start, total
        return tuple(t[start:stop] for t in batch), stop - start, total

    @contextmanager
    def within(self, count: int, total: int) -> Iterator[None]:
        """Inside, random layers that support parts drop what one process with all `total` samples would."""
        if self.size == 1 or count == 0:
            yield
            return
        with part_of_batch(self._first(self.rank, total), count, total):
            yield

    def _first(self, rank: int, total: int) -> int:
        return -(-rank * total // self.size)

    def copy_from_main(self, tensors: Iterable[Tensor]) -> None:
        """Overwrites the tensors with rank 0's, bit by bit; their shapes and dtypes must agree."""
        if self.size == 1:
            return
        for tensor in filter(torch.numel, tensors):
            sent = tensor.detach().clone(memory_format=torch.contiguous_format)
            dist.broadcast(sent.reshape(-1).view(torch.uint8), src=0)
            tensor.detach().copy_(sent)

    def check_same(self, facts: Mapping[str, object]) -> None:
        """Raises in every process where a fact of any process differs from that of rank 0.

        Raises:
            InputError: they differ; the text of the process concerned names what.
        """
        if self.size == 1:
            return
        main = self.from_main(dict(facts))
        other = [f"{k}: {main.get(k)!r} on rank 0, {v!r} here" for k, v in facts.items() if main.get(k) != v]
        if self.any(bool(other))[0]:
            what = "; ".join(other) or "another process has others"
            raise InputError(
                f"all processes of a run need the same options, batches and module; {self.rank}: {what}"
            )

    def sum_gradients(self, parameters: Sequence[Tensor]) -> None:
        """Replaces every gradient by the sum over the processes: one message per dtype."""
        if self.size == 1:
            return
        for p in parameters:
            if p.grad is None:
                p.grad = torch.zeros_like(p)
        for dtype in dict.fromkeys(p.dtype for p in parameters):
            grads = [p.grad for p in parameters if p.dtype == dtype and p.grad is not None]
            flat = torch.cat([g.reshape(-1) for g in grads])
            dist.all_reduce(torch.view_as_real(flat) if flat.is_complex() else flat)
            for grad, piece in zip(grads, flat.split([g.numel() for g in grads]), strict=True):
                grad.copy_(piece.view_as(grad))

    def sum(self, values: Tensor) -> Tensor:
        """`values` summed over the processes, in place."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """For each flag whether it is up in any process; the same answer in all of them."""
        if self.size == 1:
            return flags
        raised = self.sum(torch.tensor([float(flag) for flag in flags], device=self._fabric.device))
        return tuple(count > 0.0 for count in raised.tolist())

    def from_main(self, value: T) -> T:
        """Rank 0's `value`, in every process."""
        return value if self.size == 1 else self._fabric.broadcast(value)

    def wait(self) -> None:
        """Returns when every process has reached this call."""
        if self.size > 1:
            self._fabric.barrier()
