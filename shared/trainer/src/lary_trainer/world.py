"""The processes that share each batch. One process is a world too, and then nothing is exchanged."""

import os
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from lary_schema.launch import is_joined, local_processes
from lary_schema.store.layout import Failure
from torch import nn

Result = TypeVar("Result")
_FOREVER = timedelta(days=30)
"""The stall watchdog of the first process ends what hangs."""


class RanOutError(Exception):
    """Memory ran out, in this process or in another one."""


class World:
    """Gathers in the order of ranks and sums."""

    def __init__(self, device: torch.device) -> None:
        """Waits for the others where this process is one of several."""
        self.rank, self.size, self._device = 0, 1, device
        if is_joined():
            dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=_FOREVER)
            self.rank, self.size = dist.get_rank(), dist.get_world_size()

    def close(self) -> None:
        if self.size > 1:
            dist.destroy_process_group()

    def counts(self, mine: int) -> list[int]:
        """How many rows of a batch each process has."""
        return [row[0] for row in self._table([mine])]

    def attempt(self, function: Callable[[], Result]) -> Result:
        """`function()` in every process. Raises RanOutError in all where memory ran out in one."""
        result, out = None, False
        try:
            result = function()
        except (RuntimeError, MemoryError) as error:
            if not ran_out(error):
                raise
            out = True
        if any(row[0] for row in self._table([int(out)])) or result is None:
            raise RanOutError
        return result

    def agree(self, number: int) -> int:
        """The first process's number."""
        return self._table([number])[0][0]

    def gather(self, tensor: torch.Tensor, counts: Sequence[int]) -> torch.Tensor:
        """The rows of all processes (sum of counts, ...)."""
        if self.size == 1:
            return tensor
        sent = tensor.view(torch.uint8) if tensor.dtype == torch.bool else tensor
        padded = sent.new_zeros((max(counts), *sent.shape[1:]))
        padded[: len(sent)] = sent
        parts = [torch.empty_like(padded) for _ in range(self.size)]
        dist.all_gather(parts, padded)
        whole = torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])
        return whole.view(torch.bool) if tensor.dtype == torch.bool else whole

    def sum_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Add up what the processes found; a parameter without a gradient in all of them stays without."""
        if self.size == 1:
            return
        has = torch.tensor([p.grad is not None for p in parameters], dtype=torch.int32, device=self._device)
        dist.all_reduce(has)
        used = [p for p, n in zip(parameters, has.tolist(), strict=True) if n]
        flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in used])
        dist.all_reduce(flat)
        for parameter, summed in zip(used, torch.split(flat, [p.numel() for p in used]), strict=True):
            parameter.grad = summed.view_as(parameter).clone()

    def share(self, tensors: Sequence[torch.Tensor]) -> None:
        """Give all processes the first one's values."""
        for tensor in tensors if self.size > 1 else ():
            dist.broadcast(tensor, 0)

    def failures(self, mine: Sequence[Failure]) -> list[Failure]:
        """Those of all processes."""
        if self.size == 1:
            return list(mine)
        texts: list[list[str]] = [[]] * self.size
        dist.all_gather_object(texts, [failure.model_dump_json() for failure in mine])
        return [Failure.model_validate_json(text) for part in texts for text in part]

    def _table(self, mine: list[int]) -> list[list[int]]:
        if self.size == 1:
            return [mine]
        sent = torch.tensor([mine], device=self._device)
        parts = [torch.empty_like(sent) for _ in range(self.size)]
        dist.all_gather(parts, sent)
        return [part[0].tolist() for part in parts]


def local_device(device: torch.device) -> torch.device:
    """This process's own GPU among those of the machine."""
    if device.type != "cuda":
        return device
    chosen = int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count()
    torch.cuda.set_device(chosen)
    return torch.device("cuda", chosen)


def share_threads(threads: int | None) -> None:
    """The processes of one machine share its cores."""
    if threads is not None or local_processes() > 1:
        torch.set_num_threads(max(1, (threads or torch.get_num_threads()) // local_processes()))


_HINTS = ("out of memory", "can't allocate memory", "not enough memory", "alloc_failed")


def ran_out(error: BaseException) -> bool:
    """Whether an exception says that memory ran out, on the host or on an accelerator."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(hint in str(error).lower() for hint in _HINTS)
