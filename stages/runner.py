"""How every stage starts and ends: errors as one sentence, partial output never in place, time on the record."""

import ctypes
import inspect
import json
import multiprocessing
import os
import select
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
UNREAD = 128 + signal.SIGPIPE  # the same of one whose reader has gone
OUTPUTS = (1, 2)  # file descriptors: standard output and standard error


def run(main: Callable[..., None], options: bool = False) -> None:
    """``call`` the stage ``main``; it ends with the process that started it, and its time goes on the record."""
    die_with_parent()
    call(main, options)
    if os.environ.get("RANK", "0") == "0":
        stage = program().removeprefix("stages.")
        record(" ".join([stage, *sys.argv[1:]]), time.perf_counter() - STARTED)


def call(main: Callable[..., None], options: bool = False) -> None:
    """Call ``main(*command line arguments)``; a UserError ends the process with its sentence and exit code 1.

    So does what the operating system refuses, such as a full disk. A run that SIGTERM stopped says where, and exits
    as one that it killed; one whose output nobody reads any more, as behind ``| head``, ends as quietly as other tools.
    ``--help`` prints what the module says of itself, unless ``main`` reads ``options`` on its own.
    """
    synopsis = f"usage: python -m {' '.join([program(), *usage(main)])}"
    if not options and sys.argv[1:] in (["--help"], ["-h"]):
        about = (sys.modules["__main__"].__doc__ or "").replace("``", "`")
        print(f"{synopsis}\n\n{about}".rstrip())
        sys.exit()
    try:
        arguments = typed(main)
    except (TypeError, ValueError):
        sys.exit(synopsis)
    try:
        main(*arguments)
    except Stopped as stopped:
        print(stopped, file=sys.stderr)
        sys.exit(STOPPED)
    except Interrupted as accident:
        sys.exit(f"interrupted: {accident}")
    except (UserError, OSError) as error:
        if isinstance(error, BrokenPipeError) and unread():
            sys.exit(UNREAD)
        sys.exit("error: " + " ".join(str(error).split()))


def program() -> str:
    """Return the name of the module that was started, as ``python -m`` takes it."""
    spec = sys.modules["__main__"].__spec__
    assert spec is not None, "stages are run by python -m"
    return spec.name.removesuffix(".__main__")


def typed(main: Callable[..., None]) -> tuple:
    """Return the command line's arguments for ``main``, numbers where it takes ``int`` or ``float``.

    Raises TypeError for too few or too many, ValueError for what is no number.
    """
    signature = inspect.signature(main)
    bound = signature.bind(*sys.argv[1:])
    for name, value in bound.arguments.items():
        number = signature.parameters[name].annotation
        if number in (int, float):
            bound.arguments[name] = tuple(map(number, value)) if isinstance(value, tuple) else number(value)
    return bound.args


def unread() -> bool:
    """Tell whether nobody reads what this process prints, and if so have what is left of it go nowhere."""
    outputs = select.poll()
    for number in OUTPUTS:
        outputs.register(number, 0)
    if not any(event & select.POLLERR for _, event in outputs.poll(0)):
        return False
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for number in OUTPUTS:
        os.dup2(nowhere, number)
    return True


def die_with_parent() -> None:
    """Have the kernel end this process when its parent ends, so that no stage outlives a killed dvc."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        parent = multiprocessing.parent_process()  # of a worker; a forked one has imported this in its parent
        if os.getppid() != (parent.pid if parent else PARENT):  # it ended while this process was starting
            sys.exit(STOPPED)


def usage(main: Callable[..., None]) -> list[str]:
    """Return the names of the arguments of ``main``, in capitals; in brackets those that may be left out."""
    shown = []
    for name, parameter in inspect.signature(main).parameters.items():
        several = " ..." if parameter.kind is parameter.VAR_POSITIONAL else ""
        needed = parameter.default is parameter.empty and not several
        shown.append(name.upper() if needed else f"[{name.upper()}{several}]")
    return shown


def record(stage: str, seconds: float) -> None:
    """Append the stage's wall time to the log that ``python -m stages.timings`` prints."""
    TIMINGS.parent.mkdir(parents=True, exist_ok=True)
    with TIMINGS.open("a") as log:
        log.write(json.dumps({"stage": stage, "seconds": round(seconds, 2)}) + "\n")
