"""Gradients summed over ranks in buckets, each sent while the backward pass still makes the next ones.

Buckets have a fixed content and are sent in a fixed order, so a sum has the same bits in every update, before and after
a restart. DistributedDataParallel does this too when it is told to look for unused parameters, which dropped layers and
members that have no turn leave; but it divides by the number of ranks, where we divide by a count of tokens, and wraps
the model. docs/scaling.md compares the two.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor, nn

from d2v_core.training.ranks import Ranks, others_alive

BUCKET_BYTES = 25 * 2**20  # sent at a time: long enough for the full rate of a network, short enough to begin early


class Gradients:
    """The gradients of ``parameters`` on all ranks; the last parameters, which a backward pass reaches first, lead."""

    def __init__(self, parameters: list[nn.Parameter], ranks: Ranks, bucket_bytes: int = BUCKET_BYTES) -> None:
        self.ranks, self.buckets = ranks, cut(parameters[::-1], bucket_bytes) if ranks.size > 1 else []
        self.bucket_of = {parameter: number for number, bucket in enumerate(self.buckets) for parameter in bucket}
        self.ready: Counter = Counter()
        self.sent: list[tuple[int, Tensor, dist.Work]] = []

    @contextmanager
    def sending(self) -> Iterator[None]:
        """Send every bucket that becomes complete in the block, the backward pass of an update's last batch."""
        hooks = [parameter.register_post_accumulate_grad_hook(self.arrive) for parameter in self.bucket_of]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def arrive(self, parameter: nn.Parameter) -> None:
        """Count a gradient as complete, and send what that makes complete; no bucket overtakes another one."""
        self.ready[self.bucket_of[parameter]] += 1
        while (number := len(self.sent)) < len(self.buckets) and self.ready[number] == len(self.buckets[number]):
            self.send(number)

    def send(self, number: int) -> None:
        """Begin to sum a bucket; where this rank has no gradient it adds nothing."""
        bucket = self.buckets[number]
        parts = [torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in bucket]
        flat = torch.cat(parts)
        with others_alive():
            self.sent.append((number, flat, dist.all_reduce(flat, async_op=True)))

    def add(self) -> None:
        """Replace every gradient by its sum over ranks; one that no rank has stays None."""
        if not self.buckets:
            return
        present = torch.tensor([parameter.grad is not None for parameter in self.bucket_of], dtype=torch.float32)
        somewhere = dict(zip(self.bucket_of, self.ranks.agree(present).tolist(), strict=True))
        for number in range(len(self.sent), len(self.buckets)):
            if any(somewhere[parameter] for parameter in self.buckets[number]):
                self.send(number)
        for number, flat, work in self.sent:
            with others_alive():
                work.wait()
            bucket = self.buckets[number]
            for parameter, part in zip(bucket, flat.split([p.numel() for p in bucket]), strict=True):
                parameter.grad = part.view_as(parameter) if somewhere[parameter] else None
        self.sent, self.ready = [], Counter()


def cut(parameters: list[nn.Parameter], most: int) -> list[list[nn.Parameter]]:
    """Return ``parameters`` in order in buckets of at most ``most`` bytes, or of a single larger parameter."""
    buckets: list[list[nn.Parameter]] = []
    size = 0
    for parameter in parameters:
        if not buckets or size + parameter.nbytes > most:
            buckets.append([])
            size = 0
        buckets[-1].append(parameter)
        size += parameter.nbytes
    return buckets
