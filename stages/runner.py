"""How every stage starts and ends: errors as one sentence, partial output never in place, time on the record."""

import ctypes
import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable

from d2v_core.errors import Interrupted, Stopped, UserError
from stages import PARENT, STARTED
from stages.paths import STATE

TIMINGS = STATE / "timings.jsonl"
PR_SET_PDEATHSIG = 1
STOPPED = 128 + signal.SIGTERM  # what a process that SIGTERM ends exits with


def run(main: Callable[..., None]) -> None:
    """Call ``main(*command line arguments)``; a UserError ends the process with its sentence and exit code 1.

    So does what the operating system refuses, such as a full disk. A run that SIGTERM stopped says where, and exits
    as one that it killed.
    """
    spec = sys.modules["__main__"].__spec__
    assert spec is not None, "stages are run by python -m"
    module = spec.name.removeprefix("stages.").removesuffix(".__main__")
    die_with_parent()
    try:
        main(*sys.argv[1:])
    except Stopped as stopped:
        print(stopped, file=sys.stderr)
        sys.exit(STOPPED)
    except Interrupted as accident:
        sys.exit(f"interrupted: {accident}")
    except (UserError, OSError) as error:
        sys.exit("error: " + " ".join(str(error).split()))
    except TypeError as error:
        if f"{main.__name__}()" not in str(error):
            raise
        sys.exit(f"usage: python -m stages.{module} {usage(main)}")
    if os.environ.get("RANK", "0") == "0":
        record(" ".join([module, *sys.argv[1:]]), time.perf_counter() - STARTED)


def die_with_parent() -> None:
    """Have the kernel end this process when its parent ends, so that no stage outlives a killed dvc."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        parent = multiprocessing.parent_process()  # of a worker; a forked one has imported this in its parent
        if os.getppid() != (parent.pid if parent else PARENT):  # it ended while this process was starting
            sys.exit(STOPPED)


def usage(main: Callable[..., None]) -> str:
    """Return the names of the arguments of ``main``, in capitals; in brackets those that may be left out."""
    names = [name.upper() for name in main.__code__.co_varnames[: main.__code__.co_argcount]]
    needed = len(names) - len(main.__defaults__ or ())
    return " ".join(names[:needed] + [f"[{name}]" for name in names[needed:]])


def record(stage: str, seconds: float) -> None:
    """Append the stage's wall time to the log that ``python -m stages.timings`` prints."""
    TIMINGS.parent.mkdir(parents=True, exist_ok=True)
    with TIMINGS.open("a") as log:
        log.write(json.dumps({"stage": stage, "seconds": round(seconds, 2)}) + "\n")
