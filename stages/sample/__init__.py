"""Small corpora made on the spot, in the layouts of the real ones, so that everything runs without a download.

What every corpus needs is here: numbers that depend on nothing but their key.
"""

import hashlib
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


def fraction(*key: object) -> float:
    """Return the number in [0, 1) that belongs to ``key``, on every machine and in every run."""
    digest = hashlib.blake2b("/".join(map(str, key)).encode(), digest_size=6).digest()
    return int.from_bytes(digest, "big") / 2**48


def pick(options: Sequence[T], *key: object) -> T:
    """Return the one of ``options`` that belongs to ``key``."""
    return options[int(fraction(*key) * len(options))]
