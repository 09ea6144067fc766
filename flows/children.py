"""Processes that this one starts: they end when it does, however it ends."""

import ctypes
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def start(command: Sequence[str], **options: Any) -> subprocess.Popen:
    """Start ``command`` with the ``options`` of Popen."""
    kept = die_with_parent if LIBC else None
    return subprocess.Popen(command, preexec_fn=kept, **options)  # noqa: PLW1509 - one system call, it takes no lock


def die_with_parent() -> None:
    """Have the kernel end this process when the thread that started it ends."""
    if LIBC:
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def stop(process: subprocess.Popen, seconds: float) -> None:
    """End ``process``, with force where that takes longer than ``seconds``."""
    process.terminate()
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
