"""One DVC stage as one Prefect task: its lines are the task's log, its progress an artifact, its outcome a state."""

import re
import time
from collections import deque
from collections.abc import Callable, Iterable

from prefect import get_run_logger, task
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import TaskRun
from prefect.states import Cancelled, Completed, Failed, State
from prefect.tasks import Task

from flows import show
from flows.graph import Stage
from flows.slots import Slots, StoppedError

PROGRESS = re.compile(r"::progress (\S+) (\d+)/(\d+)(.*)")  # stages/progress.py writes it
REFUSAL = re.compile(r"(error|usage): ")  # stages/runner.py writes it
# What dvc writes: advice for people at a terminal; that the command of a stage began, before it failed.
ADVICE = re.compile(r"To track the changes|To enable auto|Use `dvc push`|\s+(git add|dvc config) ")
BEGAN = "failed to run:"
STOPPED = "exited with 143"  # a training that SIGTERM ended, after it saved
NO_ROOM = "No space left on device"
SECONDS_BEFORE_RETRY = 10
SECONDS_WITHOUT_PROGRESS = 300  # after a server did not answer for a minute
SECONDS_FOR_ROOM = 3600  # in which somebody can make room for what a stage made


def worth_retrying(task: Task, run: TaskRun, state: State) -> bool:
    """Tell an accident from a stage that was stopped, or that said what its user has to change first."""
    return state.name == "Failed"


@task(
    task_run_name="{stage.name}",
    retry_delay_seconds=SECONDS_BEFORE_RETRY,
    retry_condition_fn=worth_retrying,
    cache_policy=NO_CACHE,  # DVC is the cache
)
def run_stage(stage: Stage, slots: Slots, force: bool, tail: deque[str]) -> State:
    """Bring one stage up to date with ``dvc repro`` once a place for its resource is free; ``tail`` gets its lines."""
    if not (stage.changed or force):
        return Completed(name="UpToDate", message="dvc.lock agrees with the workspace.")
    show_line, began = make_show(stage.name), time.monotonic()

    def run(*arguments: str) -> int:
        tail.clear()
        with slots.start(stage.resource, ["dvc", "--wait-for-lock", *arguments, stage.name]) as process:
            for line in map(str.rstrip, process.stdout or ()):
                if line and not ADVICE.match(line):
                    show_line(line)
                    tail.append(line)
            return process.wait()

    try:
        code = run("repro", "--single-item", *(["--force"] if force else []))
        last = time.monotonic() + SECONDS_FOR_ROOM
        while code and unrecorded(tail) and time.monotonic() < last:
            show_line(f"warning: {stage.name} ended well, but DVC has no room to keep what it made; free some.")
            time.sleep(SECONDS_BEFORE_RETRY)
            code = run("commit", "--force")
    except StoppedError as stopped:
        return Cancelled(message=str(stopped))
    return outcome(code, list(tail), time.monotonic() - began)


def unrecorded(lines: Iterable[str]) -> bool:
    """Tell whether a stage's command ended well and the disk was full when DVC put its outputs into the cache."""
    text = "\n".join(lines)
    return NO_ROOM in text and BEGAN not in text


def make_show(name: str) -> Callable[[str], None]:
    """Return a function that logs a line of stage ``name`` and, where it tells progress, updates an artifact.

    A server that is away for longer than Prefect's client tries costs the artifact, not the stage, whose next lines
    must not wait for it.
    """
    log, artifact, again = get_run_logger(), None, 0.0

    def show_line(line: str) -> None:
        nonlocal artifact, again
        match = PROGRESS.match(line)
        log.info(line.removeprefix("::progress "))
        if not match or time.monotonic() < again:
            return
        percent = 100 * int(match[2]) / max(1, int(match[3]))
        text = f"{name}: {show.sentence(match[2], match[3], match[4])}"
        try:
            if artifact is None:
                artifact = create_progress_artifact(percent, key=show.key(name), description=text)
            else:
                update_progress_artifact(artifact, percent, description=text)
        except Exception as error:
            again = time.monotonic() + SECONDS_WITHOUT_PROGRESS
            log.warning("No progress is shown for %d s: %r", SECONDS_WITHOUT_PROGRESS, error)

    return show_line


def outcome(code: int, lines: list[str], seconds: float = 0.0) -> State:
    """Return the state that dvc's exit code and last lines mean, after a run of ``seconds``."""
    if code == 0 and any("didn't change, skipping" in line for line in lines):
        return Completed(name="UpToDate", message="Its dependencies came out as they were.")
    if code == 0 and any("is cached - skipping run" in line for line in lines):
        return Completed(name="RunCache", message="DVC had the result of an earlier run.")
    if code == 0:
        return Completed(message=f"It ran for {seconds:.1f} s.")
    if code < 0:
        return Failed(name="Stopped", message=f"dvc was ended by signal {-code}.")
    if lines and lines[-1].endswith(STOPPED):
        return Failed(name="Stopped", message="The training was asked to stop; run the stage again to go on.")
    accident = any(BEGAN in line for line in lines) and not any(REFUSAL.match(line) for line in lines)
    return Failed(name="Failed" if accident else "Refused", message=lines[-1] if lines else "No output.")
