"""Which rows make which batch: a pure function of lengths, seed, epoch and position, so nothing needs saving.

Resuming is counting: a run that stopped at (epoch, position) goes on there, and any batch can be rebuilt.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import count

import numpy as np

Place = Mapping[str, int]  # where in the order a run is: plain integers, to be saved
LENGTH_JITTER = 0.1  # share by which lengths are blurred before sorting, so that batches mix from epoch to epoch


@dataclass(frozen=True)
class Batch:
    """Rows of one batch, where it stands, how much it is in the unit of lengths, and in joint training whose it is."""

    epoch: int
    position: int
    rows: np.ndarray
    amount: float = 0.0
    member: str = ""


def key(*parts: int) -> np.random.Generator:
    """Return the random generator that belongs to ``parts``, such as (seed, epoch, row, view)."""
    return np.random.default_rng(list(parts))


def epoch_batches(lengths: np.ndarray, budget: float, seed: int, epoch: int) -> list[np.ndarray]:
    """Cut all rows into batches of similar lengths with rows × longest ≤ ``budget`` (at least one row), shuffled.

    ``lengths`` is [rows] in any unit; ``budget`` is in the same unit. Every row is used exactly once.
    """
    rng = key(seed, epoch)
    blurred = lengths * rng.uniform(1 - LENGTH_JITTER, 1 + LENGTH_JITTER, len(lengths))
    ordered = np.lexsort((rng.permutation(len(lengths)), blurred if np.ptp(lengths) else lengths))
    batches, start, longest = [], 0, 0
    for end, row in enumerate(ordered):
        longest = max(longest, lengths[row])
        if end > start and (end - start + 1) * longest > budget:
            batches.append(ordered[start:end])
            start, longest = end, lengths[row]
    batches.append(ordered[start:])
    return [batches[i] for i in rng.permutation(len(batches))]


def stream(lengths: np.ndarray, budget: float, seed: int, epoch: int = 0, position: int = 0) -> Iterator[Batch]:
    """Yield batches for ever, from ``position`` in ``epoch`` on."""
    while True:
        batches = epoch_batches(lengths, budget, seed, epoch)
        for place in range(position, len(batches)):
            rows = batches[place]
            yield Batch(epoch, place, rows, float(lengths[rows].sum()))
        epoch, position = epoch + 1, 0


def follow(lengths: np.ndarray, budget: float, seed: int, start: Place) -> Iterator[tuple[Batch, Place]]:
    """Yield batches for ever from the place ``start`` on, each with the place after it."""
    for batch in stream(lengths, budget, seed, start.get("epoch", 0), start.get("position", 0)):
        yield batch, {"epoch": batch.epoch, "position": batch.position + 1}


def take_turns(
    members: Mapping[str, tuple[np.ndarray, float]], seed: int, start: Place
) -> Iterator[tuple[Batch, Place]]:
    """Yield batches for ever: in every round each of ``members`` has one turn, in a keyed order.

    ``members`` maps a name to its lengths [rows] and the budget of its batches.
    """
    names, place = sorted(members), dict(start)
    streams = {
        name: stream(lengths, budget, seed, start.get(f"{name}.epoch", 0), start.get(f"{name}.position", 0))
        for name, (lengths, budget) in members.items()
    }
    for turn in count(start.get("turn", 0)):
        order = key(seed, turn // len(names)).permutation(len(names))
        name = names[order[turn % len(names)]]
        batch = replace(next(streams[name]), member=name)
        place |= {"turn": turn + 1, f"{name}.epoch": batch.epoch, f"{name}.position": batch.position + 1}
        yield batch, dict(place)
