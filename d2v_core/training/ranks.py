"""The processes that train together, started by torchrun: who this one is, and sums over all of them.

Gradients are summed once per update and not by DistributedDataParallel: dropped layers leave parameters without a
gradient on some ranks only, and the sum is divided by a count of masked tokens, not by the number of ranks.
"""

import atexit
import os
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn


@dataclass(frozen=True)
class Ranks:
    """This process, the ``rank``-th of ``size``."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files."""
        return self.rank == 0

    def total(self, value: Tensor) -> Tensor:
        """Return the sum of ``value`` over all ranks."""
        if self.size > 1:
            value = value.clone()
            dist.all_reduce(value)
        return value

    def any(self, flag: bool, device: torch.device) -> bool:
        """Tell whether ``flag`` is set on any rank."""
        return flag if self.size == 1 else bool(self.total(torch.tensor(float(flag), device=device)) > 0)

    def add_gradients(self, parameters: list[nn.Parameter]) -> None:
        """Replace every gradient by its sum over ranks; one that no rank has stays None."""
        if self.size == 1:
            return
        present = torch.tensor([p.grad is not None for p in parameters], dtype=torch.float32)
        somewhere = self.total(present.to(parameters[0].device)).tolist()
        used = [p for p, ranks in zip(parameters, somewhere, strict=True) if ranks]
        flat = torch.cat([torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in used])
        dist.all_reduce(flat)
        for parameter, part in zip(used, flat.split([p.numel() for p in used]), strict=True):
            parameter.grad = part.view_as(parameter)


ALONE = Ranks()


def join() -> Ranks:
    """Return this process's place among those that torchrun started, after all of them have met."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return ALONE
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    if not dist.is_initialized():
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
        atexit.register(dist.destroy_process_group)
    return Ranks(dist.get_rank(), size)
