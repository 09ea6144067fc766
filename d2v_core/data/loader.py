"""Batches made in the background, in order, a few ahead of the training step."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made")


def prefetch(make: Callable[[Item], Made], items: Iterable[Item], ahead: int = 2) -> Iterator[Made]:
    """Yield ``make(item)`` for every item in order, with up to ``ahead`` of them made by a background thread."""
    waiting: deque = deque()
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="loader") as pool:
        for item in items:
            waiting.append(pool.submit(make, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
