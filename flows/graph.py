"""What has to run, in which order: read from DVC's own graph, so that dvc.yaml stays the only description of it.

A stage says what it needs with ``meta: {resource: gpu, retries: 2}`` in dvc.yaml, which DVC ignores.
Everything in ``flows`` works on the current directory: the same code runs in any clone.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

from dvc.exceptions import DvcException
from dvc.repo import Repo

RESOURCES = ("cpu", "gpu")


class PlanError(Exception):
    """There is nothing sensible to run; the message is one sentence that says what to do."""


@dataclass(frozen=True)
class Stage:
    """One stage of dvc.yaml as a scheduler sees it."""

    name: str
    depends_on: tuple[str, ...]
    resource: str
    retries: int
    changed: bool
    metrics: tuple[str, ...] = ()  # files
    plots: tuple[str, ...] = ()


def plan(targets: Iterable[str] | None = None) -> list[Stage]:
    """Return ``targets`` (all stages if None) and what they depend on, dependencies first.

    A target is a stage (``pretrain@speech``) or the name of a group of them (``pretrain``). ``changed`` says that
    the stage or one it depends on, however indirectly, differs from dvc.lock.
    """
    with opened() as repo:
        graph = repo.index.graph  # an edge leads from a stage to one that it depends on
        nodes = {stage.addressing: stage for stage in graph}
        depends_on = {
            name: tuple(sorted(other.addressing for other in graph.successors(stage))) for name, stage in nodes.items()
        }
        wanted = with_ancestors(select(targets, depends_on), depends_on)
        changed = set(repo.status(targets=sorted(wanted))) if wanted else set()
    stages = []
    for name in TopologicalSorter({name: depends_on[name] for name in depends_on if name in wanted}).static_order():
        if changed.intersection(depends_on[name]):
            changed.add(name)
        needs = {"resource": "cpu", "retries": 0} | (nodes[name].meta or {})
        if needs["resource"] not in RESOURCES:
            raise PlanError(f"Stage {name!r} needs the resource {needs['resource']!r}; give it cpu or gpu in dvc.yaml.")
        shown = {kind: files(nodes[name], kind) for kind in ("metric", "plot")}
        stages.append(
            Stage(name, depends_on[name], needs["resource"], needs["retries"], name in changed, *shown.values())
        )
    return stages


@contextmanager
def opened() -> Iterator[Repo]:
    """Open the DVC repository in the current folder; raise PlanError when there is none or DVC cannot read it."""
    if not (Path("dvc.yaml").is_file() and Path(".dvc").is_dir()):
        raise PlanError(f"{Path.cwd()} holds no DVC pipeline; change to the folder that has dvc.yaml and .dvc in it.")
    try:
        with Repo(_wait_for_lock=True) as repo:
            yield repo
    except DvcException as error:
        raise PlanError(f"DVC cannot read the pipeline: {error}") from error


def resolve(targets: Iterable[str]) -> list[str]:
    """Return the names of the stages that ``targets`` mean, without a look at what changed."""
    with opened() as repo:
        return sorted(select(targets, [stage.addressing for stage in repo.index.graph]))


def files(stage: Any, kind: str) -> tuple[str, ...]:
    """Return the outputs of one of DVC's stages that are of a ``kind``: ``metric`` or ``plot``."""
    return tuple(str(out) for out in stage.outs if getattr(out, kind))


def select(targets: Iterable[str] | None, names: Iterable[str]) -> set[str]:
    """Return the stages among ``names`` that ``targets`` mean."""
    names = list(names)
    if not targets:
        return set(names)
    known = sorted({*names, *(name.partition("@")[0] for name in names)})
    selected = set()
    for target in targets:
        if target not in known:
            nearest = get_close_matches(target, known, n=1, cutoff=0)
            hint = f"did you mean {nearest[0]!r}?" if nearest else "dvc.yaml has no stages."
            raise PlanError(f"There is no stage {target!r} in dvc.yaml; {hint}")
        selected |= {name for name in names if target in (name, name.partition("@")[0])}
    return selected


def with_ancestors(names: Iterable[str], depends_on: Mapping[str, Iterable[str]]) -> set[str]:
    """Return ``names`` and everything that they depend on."""
    found, left = set(), list(names)
    while left:
        name = left.pop()
        if name not in found:
            found.add(name)
            left.extend(depends_on[name])
    return found
