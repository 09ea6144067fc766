"""A flow called from the command line: reasons instead of tracebacks, exit code 1 on failure, an end to Ctrl-C."""

import os
import signal
import sys
from collections.abc import Callable
from types import FrameType

from prefect.states import State

from flows.graph import PlanError, plan

SECONDS_TO_STOP = 5


def run(called: Callable[..., State], targets: list[str], /, **parameters: object) -> None:
    """Call a flow to run ``targets``; exit with 1 and the reason if it fails. No server starts for a mistyped name."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    try:
        plan(targets)
    except PlanError as error:
        sys.exit(str(error))
    state = called(**parameters, return_state=True)
    if not state.is_completed():
        sys.exit(state.message)


def stop(number: int, frame: FrameType | None) -> None:
    """Unwind, for a few seconds at most: Ctrl-C ends a temporary server too, which Prefect would call for a minute."""
    print(f"Stopped by {signal.Signals(number).name}.", file=sys.stderr, flush=True)
    signal.signal(signal.SIGALRM, lambda *_: os._exit(1))
    signal.alarm(SECONDS_TO_STOP)
    sys.exit(1)
