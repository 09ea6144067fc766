"""How every stage starts and ends: errors as one sentence, partial output never in place, time on the record."""

import ctypes
import json
import signal
import sys
import time
from collections.abc import Callable

from d2v_core.errors import Stopped, UserError
from stages import STARTED
from stages.paths import STATE

TIMINGS = STATE / "timings.jsonl"
PR_SET_PDEATHSIG = 1
STOPPED = 128 + signal.SIGTERM  # what a process that SIGTERM ends exits with


def run(main: Callable[..., None]) -> None:
    """Call ``main(*command line arguments)``; a UserError ends the process with its sentence and exit code 1.

    So does what the operating system refuses, such as a full disk. A run that SIGTERM stopped says where, and exits
    as one that it killed.
    """
    module = sys.modules["__main__"].__spec__.name.removeprefix("stages.").removesuffix(".__main__")
    die_with_parent()
    try:
        main(*sys.argv[1:])
    except Stopped as stopped:
        print(stopped, file=sys.stderr)
        sys.exit(STOPPED)
    except (UserError, OSError) as error:
        sys.exit("error: " + " ".join(str(error).split()))
    except TypeError as error:
        if f"{main.__name__}()" not in str(error):
            raise
        sys.exit(f"usage: python -m stages.{module} {usage(main)}")
    record(" ".join([module, *sys.argv[1:]]), time.perf_counter() - STARTED)


def die_with_parent() -> None:
    """Have the kernel end this process when its parent ends, so that no stage outlives a killed dvc."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def usage(main: Callable[..., None]) -> str:
    """Return the names of the arguments of ``main``, in capitals."""
    return " ".join(name.upper() for name in main.__code__.co_varnames[: main.__code__.co_argcount])


def record(stage: str, seconds: float) -> None:
    """Append the stage's wall time to the log that ``python -m stages.timings`` prints."""
    TIMINGS.parent.mkdir(parents=True, exist_ok=True)
    with TIMINGS.open("a") as log:
        log.write(json.dumps({"stage": stage, "seconds": round(seconds, 2)}) + "\n")
