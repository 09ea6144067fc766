"""Several processes that train together, forked from a test: no torchrun to start, nothing to import again."""

import multiprocessing
import os
import socket
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection

Part = tuple[multiprocessing.Process, Connection]


def on_ranks(size: int, work: Callable[[int], object], seconds: float = 60) -> dict[int, object]:
    """Call ``work(rank)`` in ``size`` processes, as torchrun would; return what each gave, or its traceback."""
    given = {}
    for rank, (process, end) in enumerate(begin(size, work)):
        try:
            if end.poll(seconds):
                given[rank] = end.recv()
        except EOFError:
            pass
        process.kill()
        process.join()
    return given


def begin(size: int, work: Callable[[int], object]) -> list[Part]:
    """Start ``work(rank)`` in ``size`` processes; return each with the end of a pipe that gets its answer."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    context = multiprocessing.get_context("fork")
    parts = []
    for rank in range(size):
        end, answer = context.Pipe(duplex=False)
        process = context.Process(target=take_part, args=(rank, size, port, work, answer))
        process.start()
        answer.close()
        parts.append((process, end))
    return parts


def take_part(rank: int, size: int, port: int, work: Callable[[int], object], answer: Connection) -> None:
    """Be process ``rank``, and end without what a forked test would do at its end."""
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_RANK": str(rank)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    try:
        answer.send(work(rank))
    except BaseException:
        answer.send(traceback.format_exc())
    os._exit(0)
