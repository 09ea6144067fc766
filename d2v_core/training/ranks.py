"""The processes that train together, started by torchrun: who this one is, and sums over all of them."""

import atexit
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from d2v_core.errors import Interrupted


@dataclass(frozen=True)
class Ranks:
    """This process, the ``rank``-th of ``size``; ``hosts`` carries what no GPU should have to wait for."""

    rank: int = 0
    size: int = 1
    hosts: dist.ProcessGroup | None = None

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files."""
        return self.rank == 0

    def total(self, value: Tensor) -> Tensor:
        """Return the sum of ``value`` over all ranks; it is on a GPU where that is what they train on."""
        return value if self.size == 1 else summed(value, None)

    def agree(self, value: Tensor) -> Tensor:
        """Return the sum of ``value``, which is on the CPU, over all ranks."""
        return value if self.size == 1 else summed(value, self.hosts)

    def any(self, flag: bool) -> bool:
        """Tell whether ``flag`` is set on any rank."""
        return bool(self.agree(torch.tensor(float(flag))) > 0)

    def differ(self, *numbers: int) -> bool:
        """Tell whether ``numbers`` are not the same on all ranks."""
        mine = torch.tensor(numbers)
        firsts = mine if self.first else torch.zeros_like(mine)
        return self.any(not torch.equal(self.agree(firsts), mine))

    def follow_first(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite ``tensors`` by those of the first rank."""
        for tensor in tensors if self.size > 1 else ():
            whole = tensor.contiguous()
            with others_alive():
                dist.broadcast(whole, 0)
            tensor.copy_(whole)


ALONE = Ranks()


def summed(value: Tensor, group: dist.ProcessGroup | None) -> Tensor:
    """Return the sum of ``value`` over the ranks of ``group``, all of them by default."""
    value = value.clone()
    with others_alive():
        dist.all_reduce(value, group=group)
    return value


@contextmanager
def others_alive() -> Iterator[None]:
    """Turn what a collective says when another process is gone into Interrupted."""
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and "gloo" not in str(error):
            raise
        raise Interrupted("another process of this training is gone; run it again to go on.") from error


def join() -> Ranks:
    """Return this process's place among those that torchrun started, after all of them have met.

    They meet under a name of their own in the store that torchrun keeps through its restarts: it still holds the
    addresses of processes that are gone.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return ALONE
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    if not dist.is_initialized():
        store, rank, _ = next(rendezvous("env://"))
        meeting = dist.PrefixStore(f"d2v-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}-{size}", store)
        backend = "nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(backend, store=meeting, rank=rank, world_size=size)
        atexit.register(dist.destroy_process_group)
    group = cast(dist.ProcessGroup, dist.new_group(backend="gloo"))  # of all, so that none is outside it
    return Ranks(dist.get_rank(), size, group)
