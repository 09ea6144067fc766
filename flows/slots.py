"""How many stages run at once, and how they all end with the run: the only state that the tasks of a run share."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from flows import children


class StoppedError(Exception):
    """The run is ending; no more stages start."""


class Slots:
    """Places for stages, by resource. Once closed, what runs is ended and nothing more starts."""

    def __init__(self, **places: int) -> None:
        self.places = {resource: threading.Semaphore(count) for resource, count in places.items()}
        self.running: set[subprocess.Popen] = set()
        self.closed = False
        self.lock = threading.Lock()

    @contextmanager
    def start(self, resource: str, command: Sequence[str]) -> Iterator[subprocess.Popen]:
        """Wait for a place, then run ``command`` with its output as lines; it ends with the block at the latest."""
        with self.places[resource]:
            with self.lock:
                if self.closed:
                    raise StoppedError("The run was stopped before this stage began.")
                process = launch(command)
                self.running.add(process)
            try:
                yield process
            finally:
                if process.poll() is None:
                    process.terminate()
                process.wait()
                if process.stdout:
                    process.stdout.close()
                with self.lock:
                    self.running.remove(process)

    def close(self) -> None:
        """End what runs and let nothing more start."""
        with self.lock:
            self.closed = True
            for process in self.running:
                process.terminate()


def launch(command: Sequence[str]) -> subprocess.Popen:
    """Start ``command`` with our interpreter's tools and in our process group, so that its signals arrive."""
    tools = str(Path(sys.executable).parent)
    path = os.pathsep.join([tools, os.environ.get("PATH", os.defpath)])
    return children.start(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        env=os.environ | {"PATH": path, "PYTHONUNBUFFERED": "1"},
    )
