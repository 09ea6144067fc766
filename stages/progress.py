"""Progress that suits whoever is looking: a bar on a terminal, a plain line now and then elsewhere."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")
SECONDS_BETWEEN_LINES = 5.0


def track(
    items: Iterable[T], label: str, total: int, start: int = 0, unit: str = "it", note: Callable[[], str] = str
) -> Iterator[T]:
    """Yield ``items`` and show how far along ``total`` we are, with rate, time left and ``note()``.

    Away from a terminal each line reads ``::progress LABEL DONE/TOTAL RATE ETA NOTE``, which the flows parse.
    """
    if sys.stderr.isatty():
        with tqdm(items, desc=label, total=total, initial=start, unit=unit, dynamic_ncols=True) as bar:
            for item in bar:
                bar.set_postfix_str(note(), refresh=False)
                yield item
        return
    began = last = time.monotonic()
    for done, item in enumerate(items, start + 1):
        yield item
        now = time.monotonic()
        if now - last >= SECONDS_BETWEEN_LINES or done == total:
            rate = (done - start) / max(now - began, 1e-9)
            left = f"{rate:.1f} {unit}/s ETA {(total - done) / rate:.0f} s"
            print(f"::progress {label} {done}/{total} {left} {note()}".rstrip(), flush=True)
            last = now
