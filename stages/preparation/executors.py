"""Where shards are made: in a child of this process, in several processes, or on a Dask cluster.

The shards are the same bytes everywhere and come back in order. A worker that is lost costs a second attempt, in which
every item is decoded in a process of its own.
"""

import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor
from dataclasses import dataclass
from itertools import islice
from multiprocessing import get_context
from multiprocessing.connection import Connection

from d2v_core.errors import UserError
from stages.preparation.shards import Task, make_shard
from stages.preparation.store import Done
from stages.runner import die_with_parent

SECONDS_ALONE = 3.0  # what starting processes that import torch takes
SECONDS_TO_CONNECT = 20
ATTEMPTS = 3
PROCESSES, CLUSTER = "processes", "dask://"


def results(tasks: Iterator[Task], count: int, executor: str, remote: bool = False) -> Iterator[Done]:
    """Make the shards of ``count`` tasks and yield what became of each, in order.

    ``executor`` is ``processes`` or ``dask://HOST:PORT``; ``remote`` says that input or output is at a URL. Raises
    UserError for another executor, or when a shard is too much for every worker.
    """
    if executor.startswith(CLUSTER):
        yield from on_cluster(tasks, executor.removeprefix(CLUSTER))
    elif executor == PROCESSES:
        workers = min(count, os.cpu_count() or 1)
        if sys.platform == "linux" and not remote:  # elsewhere, and with open connections, forking is not safe
            yield from in_child(tasks, SECONDS_ALONE if workers > 1 else float("inf"))
        yield from in_order(tasks, lambda: pool(workers), 2 * workers)
    else:
        raise UserError(f"params.yaml: executor must be 'processes' or 'dask://HOST:PORT', not {executor!r}.")


def in_child(tasks: Iterator[Task], seconds: float) -> Iterator[Done]:
    """Make shards in a forked child, which starts at once, until ``seconds`` have passed; leave the rest in ``tasks``.

    It is a child so that a crash does not end this process.
    """
    deadline, child = time.monotonic() + seconds, None
    try:
        while time.monotonic() < deadline and (task := next(tasks, None)) is not None:
            child = child or fork()
            try:
                child.send(task)
                answer = child.recv()
            except (EOFError, OSError):
                child.close()
                child, answer = None, make_shard(task, careful=True)
            if isinstance(answer, BaseException):
                raise answer
            yield answer
    finally:
        if child:
            child.close()


def fork() -> Connection:
    """Start a copy of this process that makes the shards it is sent, and return the way to it."""
    context = get_context("fork")
    here, there = context.Pipe()
    process = context.Process(target=serve, args=(here, there), daemon=False)
    process.start()
    there.close()
    return here


def serve(here: Connection, there: Connection) -> None:
    """Make every shard that is asked for, until the other end closes; answer with an exception where there is one."""
    die_with_parent()
    here.close()
    while True:
        try:
            task = there.recv()
        except EOFError:
            return
        try:
            there.send(make_shard(task))
        except Exception as error:
            there.send(error)


def pool(workers: int) -> Executor:
    """Return processes that end with this one."""
    return ProcessPoolExecutor(max(1, workers), mp_context=get_context("spawn"), initializer=die_with_parent)


def on_cluster(tasks: Iterator[Task], address: str) -> Iterator[Done]:
    """Make shards on the workers of the Dask scheduler at ``address``."""
    try:
        from distributed import Client
    except ImportError:
        raise UserError(
            "executor: dask:// needs the package distributed; install it with pip install 'd2v[dask]'."
        ) from None
    try:
        client = Client(f"tcp://{address}", timeout=SECONDS_TO_CONNECT, set_as_default=False)
    except OSError as error:
        raise UserError(f"no Dask scheduler answers at {address} ({error}); start one or change `executor`.") from None
    with client:
        threads = sum(client.nthreads().values())
        yield from in_order(tasks, lambda: client.get_executor(pure=False), max(64, 4 * threads))


@dataclass
class Attempt:
    """A shard that is being made, and how many times that was begun before."""

    task: Task
    future: Future
    failures: int = 0


def in_order(tasks: Iterator[Task], connect: Callable[[], Executor], window: int) -> Iterator[Done]:
    """Yield what becomes of every task, in order, with at most ``window`` of them under way."""
    under_way: deque[Attempt] = deque()
    executor = None
    try:
        while True:
            for task in islice(tasks, window - len(under_way)):
                executor = executor or connect()
                under_way.append(Attempt(task, submit(executor, task, careful=False)))
            if not under_way:
                return
            error = under_way[0].future.exception()
            if error is None:
                yield under_way.popleft().future.result()
            elif not lost(error):
                raise error
            else:
                assert executor is not None
                executor = again(executor, connect, under_way)
    finally:
        for attempt in under_way:
            attempt.future.cancel()
        if executor:
            executor.shutdown(wait=True)


def submit(executor: Executor, task: Task, careful: bool) -> Future:
    """Return the future of a shard; one that failed already where the executor is broken."""
    try:
        return executor.submit(make_shard, task, careful)
    except BrokenExecutor as error:
        future: Future = Future()
        future.set_exception(error)
        return future


def lost(error: BaseException | None) -> bool:
    """Tell whether ``error`` says that the worker is gone, by its process pool or by Dask."""
    return isinstance(error, BrokenExecutor) or type(error).__name__ == "KilledWorker"


def again(executor: Executor, connect: Callable[[], Executor], under_way: deque[Attempt]) -> Executor:
    """Begin the shards anew whose workers are gone, carefully; return the executor that has them."""
    if isinstance(under_way[0].future.exception(), BrokenExecutor):
        executor.shutdown(wait=True)
        executor = connect()
    for attempt in under_way:
        if attempt.future.done() and not attempt.future.cancelled() and lost(attempt.future.exception()):
            attempt.failures += 1
            if attempt.failures > ATTEMPTS:
                modality = attempt.task.job.modality
                raise UserError(
                    f"processes that decode {modality} were ended; lower rows_per_shard if memory is short."
                )
            attempt.future = submit(executor, attempt.task, careful=True)
    return executor
