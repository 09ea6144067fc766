"""How fast a run is: what passed through it since the last record, by the clock.

Times are no results: they stay out of the records, which are the same bits in every run.
"""

import resource
import sys
import time
from collections.abc import Iterable, Iterator, Mapping

import torch
from torch.utils.flop_counter import FlopCounterMode

from d2v_core.model.loss import Loss

MIB = 2**20


class Meter:
    """Counts updates, samples, tokens and the modality's units; waits for input; operations of a step, once."""

    def __init__(self) -> None:
        self.operations_per_token = 0.0
        self.reset()

    def reset(self) -> None:
        """Start counting anew."""
        self.began, self.waited = time.perf_counter(), 0.0
        self.updates = self.samples = self.tokens = 0
        self.amount = 0.0

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

    def operations(self, counter: FlopCounterMode, loss: Loss) -> None:
        """Keep the floating-point operations per encoded token of a batch that ``counter`` has seen."""
        self.operations_per_token = counter.get_total_flops() / max(sum(loss.tokens or (0,)), 1)

    def read(self) -> dict[str, float]:
        """Return rates per second since the last reading, the share of time without input, and the peak memory."""
        seconds = time.perf_counter() - self.began
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        if torch.cuda.is_available():
            peak = torch.cuda.max_memory_allocated()
        rates = {
            "updates_per_second": self.updates / seconds,
            "samples_per_second": self.samples / seconds,
            "units_per_second": self.amount / seconds,
            "tokens_per_second": self.tokens / seconds,
            "teraflops_per_second": self.tokens * self.operations_per_token / seconds / 1e12,
            "input_wait": self.waited / seconds,
            "peak_mib": peak / MIB,
        }
        self.reset()
        return rates
