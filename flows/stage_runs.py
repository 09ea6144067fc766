"""The stages of one run: planned, run as Prefect tasks in the order of DVC's graph, and summed up."""

import fcntl
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from prefect import get_run_logger
from prefect.futures import PrefectFuture, wait
from prefect.runtime import flow_run
from prefect.states import Completed, Failed, State

from flows import show
from flows.graph import PlanError, Stage, plan, resolve
from flows.slots import Slots
from flows.stage_task import run_stage
from flows.worker import sign
from flows.workspace import Workspace, isolated, tool

LINES_SHOWN = 15  # of a failed stage's log
LOCK = Path(".dvc/tmp/flow.lock")


@dataclass(frozen=True)
class Options:
    """How stages run: places by resource, what to lay over params.yaml, and whether in a workspace of their own."""

    force: bool = False
    cpu: int = 2
    gpu: int = 1
    isolated: bool = False
    push: bool = False
    recipe: str | None = None
    values: Mapping[str, object] = field(default_factory=dict)  # by dotted key of params.yaml; None leaves one as it is

    @property
    def changes(self) -> dict[str, object]:
        """The values that were asked for."""
        return {key: value for key, value in self.values.items() if value is not None}


def run_stages(targets: list[str] | None, options: Options) -> State:
    """Run ``targets`` and what they depend on within a flow and say how it went.

    What changes params.yaml runs in a workspace of its own, and so does what asks for one.
    """
    sign()
    try:
        with ExitStack() as stack:
            workspace = None
            if options.isolated or options.recipe or options.changes:
                planned = resolve(targets) if targets else []
                name = show.key(flow_run.name or "run", (flow_run.id or "")[:8])
                workspace = stack.enter_context(isolated(name, options.recipe, options.changes, planned))
            stack.enter_context(only_run())
            stages = plan(targets)
            state = run_planned(stages, options)
            if workspace:
                keep(workspace, state.message or "")
            elif "report" in {stage.name for stage in stages}:
                show.show_report()
            if options.push:
                push(targets)
            return state
    except PlanError as error:
        return Failed(name="Refused", message=str(error))


def run_planned(stages: list[Stage], options: Options) -> State:
    """Run ``stages`` as tasks, so many side by side as ``options`` have places for."""
    slots = Slots(cpu=options.cpu, gpu=options.gpu)
    tails: dict[str, deque[str]] = {stage.name: deque(maxlen=LINES_SHOWN) for stage in stages}
    futures: dict[str, PrefectFuture] = {}
    try:
        for stage in stages:
            before = [futures[name] for name in stage.depends_on]
            tags = [stage.resource, *stage.name.split("@")]
            task = run_stage.with_options(name=stage.name, retries=stage.retries, tags=tags)
            asked = (stage, slots, options.force, tails[stage.name])
            futures[stage.name] = task.submit(*asked, wait_for=before, return_state=False)
        wait(list(futures.values()))
    except BaseException:
        slots.close()
        raise
    states = {name: future.state for name, future in futures.items()}
    show.show_states(states)
    show.show_results(stages)
    return conclude(states, tails)


def conclude(states: Mapping[str, State], tails: Mapping[str, Iterable[str]]) -> State:
    """Return the state of a flow whose stages ended in ``states``, with the end of the log of those that failed."""
    counts = Counter(state.name for state in states.values())
    lines = ["Stages: " + ", ".join(f"{count} {name}" for name, count in counts.items())]
    if all(state.is_completed() for state in states.values()):
        return Completed(message=lines[0])
    for name, state in states.items():
        if state.is_failed():
            lines += [f"{name} failed:", *(f"    {line}" for line in tails[name])]
    return Failed(message="\n".join(lines))


def keep(workspace: Workspace, summary: str) -> None:
    """Commit what ran and what came out to the workspace's branch, and show where that is."""
    difference = workspace.difference()
    commit = workspace.commit(summary)
    get_run_logger().info("Kept as commit %s of branch %s.", commit, workspace.branch)
    show.show_version(workspace.branch, commit, difference, summary)


def push(targets: list[str] | None) -> None:
    """Push outputs and the run cache to DVC's default remote, whose credentials come from the environment."""
    names = [stage.name for stage in plan(targets)]
    for line in tool("dvc", "push", "--run-cache", *names).splitlines():
        get_run_logger().info(line)


@contextmanager
def only_run() -> Iterator[None]:
    """Wait until no other flow runs in the current folder, and keep others waiting while the block runs."""
    if not LOCK.parent.parent.is_dir():
        yield  # not a repository: planning says so
        return
    LOCK.parent.mkdir(exist_ok=True)
    with LOCK.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            get_run_logger().info("Another run is at work in %s; waiting for its end.", Path.cwd())
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
