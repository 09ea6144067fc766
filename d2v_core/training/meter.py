"""How fast a run is: what passed through it since the last record, by the clock.

Times are no results: they stay out of the records, which are the same bits in every run.
"""

import resource
import sys
import time
from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from d2v_core.model.loss import Loss

MIB = 2**20


class Meter:
    """Counts updates, samples, tokens and the modality's units; waits for input; operations of a step, once."""

    def __init__(self) -> None:
        self.operations_each = 0.0
        self.reset()

    def reset(self) -> None:
        """Start counting anew."""
        self.began, self.waited = time.perf_counter(), 0.0
        self.updates = self.samples = self.tokens = self.work = 0
        self.amount, self.places = 0.0, 0
        self.padded: int | Tensor = 0

    def timed(self, batches: Iterable[tuple[float, Mapping]]) -> Iterator[Mapping]:
        """Yield the tensors of batches, counting the amount of each and the time until it is there."""
        source = iter(batches)
        while True:
            asked = time.perf_counter()
            try:
                amount, tensors = next(source)
            except StopIteration:
                return
            self.waited += time.perf_counter() - asked
            self.amount += amount
            yield tensors

    def add(self, loss: Loss) -> None:
        """Count a batch that has been trained on."""
        self.samples += loss.samples
        self.tokens += sum(loss.tokens or (0,))
        self.work += size(loss)
        self.places += 0 if loss.targets is None else loss.targets.shape[:2].numel()
        if loss.padding is not None:
            self.padded = self.padded + loss.padding.sum()  # on the device: no step waits for it

    def operations(self, counter: FlopCounterMode, loss: Loss) -> None:
        """Keep the floating-point operations, per token or sample, of a batch that ``counter`` has seen."""
        self.operations_each = counter.get_total_flops() / size(loss)

    def read(self) -> dict[str, float]:
        """Return rates per second since the last reading, the share of time without input, and the peak memory.

        ``teraflops_per_second`` is that of this process. ``padding`` is the share of places in batches without content.
        """
        seconds = time.perf_counter() - self.began
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        if torch.cuda.is_available():
            peak = torch.cuda.max_memory_allocated()
        rates = {
            "updates_per_second": self.updates / seconds,
            "samples_per_second": self.samples / seconds,
            "units_per_second": self.amount / seconds,
            "tokens_per_second": self.tokens / seconds,
            "teraflops_per_second": self.work * self.operations_each / seconds / 1e12,
            "input_wait": self.waited / seconds,
            "padding": float(self.padded) / max(self.places, 1),
            "peak_mib": peak / MIB,
        }
        self.reset()
        return rates


def size(loss: Loss) -> int:
    """Return what the operations of a batch are proportional to: its encoded tokens or, where unknown, its samples."""
    return sum(loss.tokens) if loss.tokens else loss.samples
