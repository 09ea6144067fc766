"""Decoding in a process of its own: when a codec crashes, the item it was at is dropped and the next one is decoded.

Shards are decoded like this on their second attempt, after the first one took its worker with it. ``subprocess`` is
used because the workers of a cluster may not have children by ``multiprocessing``.
"""

import itertools
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import IO

from d2v_core.data.table import Row
from d2v_core.errors import Dropped
from stages.preparation import shards
from stages.runner import die_with_parent

READY = "ready"


def decode(task: "shards.Task") -> Iterator[list[Row] | Dropped]:
    """Yield the rows of every item, or why it is dropped; like ``shards.decode``, but a crash costs one item."""
    number = 0
    while number < len(task.records):
        with start(task, number) as child:
            assert child.stdout is not None
            try:
                if pickle.load(child.stdout) != READY:
                    raise EOFError
            except EOFError:
                raise RuntimeError(f"a process that decodes ended as it began (exit code {child.wait()})") from None
            for outcome in answers(child.stdout):
                number += 1
                yield outcome
        if number < len(task.records):
            number += 1
            yield Dropped(shards.CRASHED, how(child.returncode))


def start(task: "shards.Task", first: int) -> subprocess.Popen:
    """Start a process that decodes the items of ``task`` from number ``first`` on."""
    path = os.pathsep.join(folder for folder in [os.environ.get("PYTHONPATH"), *sys.path] if folder)
    child = subprocess.Popen(
        [sys.executable, "-m", "stages.preparation.careful"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": path},
    )
    assert child.stdin is not None
    pickle.dump((task, first), child.stdin)
    child.stdin.close()
    return child


def answers(output: IO[bytes]) -> Iterator[list[Row] | Dropped]:
    """Yield what the process with this output answers until it ends, whole answers alone."""
    while True:
        try:
            yield pickle.load(output)
        except (EOFError, pickle.UnpicklingError):
            return


def how(code: int) -> str:
    """Say how a process ended."""
    return f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


def main() -> None:
    """Answer on what was standard output; whatever codecs print goes to standard error."""
    die_with_parent()
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    task, first = pickle.load(sys.stdin.buffer)
    shards.enter(task.job)
    for outcome in itertools.chain([READY], shards.decode(task, first)):
        pickle.dump(outcome, answers)
        answers.flush()


if __name__ == "__main__":
    main()
