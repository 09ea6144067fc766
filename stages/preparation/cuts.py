"""Which items share a shard: cut where the ids say so, so that a new item changes its own shard and no other.

Items are sorted by id. A shard begins at an item whose keyed digest is the smallest among its neighbours (local-minimum
chunking). Whether it does depends on ``size`` neighbours alone, so that adding or removing an item moves cuts near it
and none elsewhere; and the order of all rows is that of their ids whatever ``size`` is.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
import polars as pl


def cut(ids: Sequence[str], size: int) -> list[slice]:
    """Return the slices of sorted, distinct ``ids`` that are shards: ``size`` items on average, half of it at least.

    One digest in ``size`` is the smallest of the ``size`` around it, and two such are more than ``size / 2`` apart.
    """
    if not len(ids):
        return []
    before, after = (size - 1) // 2, size // 2
    digests = np.array([digest(name) for name in ids], dtype=np.int64)
    smallest = pl.Series(digests).rolling_min(size).to_numpy()[before + after :]  # around before .. len(ids) - after
    inner = digests[before : len(ids) - after] if len(ids) >= size else digests[:0]
    begins = np.flatnonzero(inner == smallest[: len(inner)]) + before
    starts = [0, *begins[begins > 0].tolist()]
    return [slice(start, stop) for start, stop in zip(starts, [*starts[1:], len(ids)], strict=True)]


def digest(name: str) -> int:
    """Return a number that depends on ``name`` alone, the same on every machine."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=7).digest())
