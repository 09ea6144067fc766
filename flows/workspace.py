"""A folder of its own for a run: a commit of the project, changed by the run's parameters, kept as a branch.

What ran is then what is versioned: the branch ``runs/NAME`` holds the code, params.yaml, dvc.lock, metrics and plots
of the run and DVC's cache its models; neither the project's folder nor another run's is touched. Checkpoints stay
in the project's ``state``, so that a run which repeats a stopped one goes on from where that stopped.
"""

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import chdir, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from flows.graph import PlanError, opened

RUNS = Path("state/runs")
AUTHOR = ("-c", "user.name=d2v", "-c", "user.email=d2v@localhost", "-c", "commit.gpgsign=false")
LINKS = "reflink,hardlink,copy"  # how outputs come from the project's cache; stages never write in place


@dataclass(frozen=True)
class Workspace:
    """A run's folder, the branch that remembers it, and the commit that it began from."""

    folder: Path
    branch: str
    base: str

    def commit(self, message: str) -> str:
        """Commit everything that git does not ignore; return the abbreviated hash."""
        git("add", "-A", folder=self.folder)
        git(*AUTHOR, "commit", "-q", "--allow-empty", "-m", message, folder=self.folder)
        return git("rev-parse", "--short", "HEAD", folder=self.folder)

    def difference(self) -> str:
        """Return what the run's parameters changed in params.yaml, as a diff."""
        return git("diff", self.base, "--", "params.yaml", folder=self.folder)


@contextmanager
def isolated(name: str, recipe: str | None, values: Mapping[str, object], targets: list[str]) -> Iterator[Workspace]:
    """Change to a new workspace ``name`` of the project in the current folder while the block runs.

    ``recipe`` and then ``values``, by dotted key, are laid over its params.yaml. What DVC has of ``targets`` and of
    what they depend on is checked out. Raises PlanError when git, a recipe or params.yaml refuses.
    """
    project = Path.cwd()
    with claimed(project / RUNS / name) as folder:
        base = snapshot()
        branch = f"runs/{name}"
        git("worktree", "add", "-q", "-B", branch, str(folder), base)
        with chdir(folder), environment(D2V_STATE=str(project / "state/checkpoints"), PYTHONPATH=str(folder)):
            share_cache(project, folder)
            change(recipe, values)
            link_inputs(project, folder)
            workspace = Workspace(folder, branch, base)
            workspace.commit(f"Parameters of {name}")
            tool("dvc", "--quiet", "checkout", "--with-deps", "--allow-missing", *targets, check=False)
            yield workspace


@contextmanager
def claimed(folder: Path) -> Iterator[Path]:
    """Hold ``folder`` for the block and remove it afterwards, with those that runs which were killed left behind."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    for lock in folder.parent.glob("*.lock"):
        with suppress(BlockingIOError), held(lock):
            discard(lock.with_suffix(""))
            lock.unlink(missing_ok=True)
    lock = folder.parent / f"{folder.name}.lock"
    with held(lock):
        try:
            yield folder
        finally:
            discard(folder)
            lock.unlink(missing_ok=True)


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold the lock file ``path`` while the block runs; raise BlockingIOError when another process does."""
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def discard(folder: Path) -> None:
    """Remove a workspace's folder; its branch stays."""
    shutil.rmtree(folder, ignore_errors=True)
    git("worktree", "prune", folder=folder.parents[2], check=False)


def snapshot() -> str:
    """Return a commit of the project as it lies there, edits and new files included, without touching its index."""
    head = git("rev-parse", "--verify", "-q", "HEAD", check=False)
    index = Path(git("rev-parse", "--absolute-git-dir")) / f"index.run.{os.getpid()}"
    try:
        with environment(GIT_INDEX_FILE=str(index)):
            if head:
                git("read-tree", head)
            git("add", "-A")
            tree = git("write-tree")
    finally:
        index.unlink(missing_ok=True)
    if head and tree == git("rev-parse", f"{head}^{{tree}}"):
        return head
    parents = ("-p", head) if head else ()
    return git(*AUTHOR, "commit-tree", tree, *parents, "-m", "The project's folder as a run found it")


def share_cache(project: Path, folder: Path) -> None:
    """Have the workspace use the project's cache, and what its config.local says about remotes."""
    local = project / ".dvc/config.local"
    if local.exists():
        (folder / ".dvc/config.local").write_bytes(local.read_bytes())
        (folder / ".dvc/config.local").chmod(0o600)
    with chdir(project):
        cache = tool("dvc", "cache", "dir").strip()
    tool("dvc", "config", "--local", "cache.dir", str(project / cache))
    tool("dvc", "config", "--local", "cache.type", LINKS)


def link_inputs(project: Path, folder: Path) -> None:
    """Link what stages read and neither git nor a stage brings to the workspace, such as a corpus below data/raw."""
    with opened() as repo:
        made = {Path(out.fs_path) for out in repo.index.outs}
        read = {Path(dep.fs_path) for stage in repo.index.stages for dep in stage.deps}
    above = {parent for path in made for parent in path.parents}
    for path in read - made - above:
        if path.is_relative_to(folder) and not path.exists() and not made.intersection(path.parents):
            original = project / path.relative_to(folder)
            if original.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.symlink_to(original)


def change(recipe: str | None, values: Mapping[str, object]) -> None:
    """Lay ``recipe`` and then ``values`` over params.yaml of the current folder; its comments stay."""
    if recipe:
        tool(sys.executable, "-m", "stages.recipes", recipe)
    if values:
        from stages.params import PATH, UserError, load
        from stages.recipes import Recipe, apply

        try:
            apply([Recipe("parameters", "", {}, nested(values, load()))], PATH)
        except UserError as error:
            raise PlanError(str(error)) from None


def nested(values: Mapping[str, object], below: Mapping) -> dict:
    """Return dotted keys as blocks; what a block ``v2`` in ``below`` changes again is changed there as well.

    Raises PlanError for a key that ``below`` lacks.
    """
    blocks: dict = {}
    for key, value in values.items():
        put(blocks, key, value)
        if not has(below, key):
            raise PlanError(f"params.yaml has no {key}; add it, or leave this parameter empty.")
        block, inner = key.split(".", 2)[:2], key.split(".", 2)[2:]
        later = ".".join([*block, "v2", *inner])
        if has(below, later):
            put(blocks, later, value)
    return blocks


def put(blocks: dict, key: str, value: object) -> None:
    """Set the dotted ``key`` of ``blocks``."""
    *path, last = key.split(".")
    for part in path:
        blocks = blocks.setdefault(part, {})
    blocks[last] = value


def has(blocks: object, key: str) -> bool:
    """Tell whether ``blocks`` have the dotted ``key``."""
    for part in key.split("."):
        if not isinstance(blocks, Mapping) or part not in blocks:
            return False
        blocks = blocks[part]
    return True


@contextmanager
def environment(**variables: str) -> Iterator[None]:
    """Set environment variables while the block runs."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def git(*arguments: str, folder: Path | None = None, check: bool = True) -> str:
    """Return what git prints; raise PlanError with its reason when it fails and ``check`` is set."""
    return tool("git", *arguments, folder=folder, check=check).strip()


def tool(*command: str, folder: Path | None = None, check: bool = True) -> str:
    """Return what ``command``, which no shell reads, prints; raise PlanError with its last line when it fails."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    result = subprocess.run(
        command, cwd=folder, env=os.environ | {"PATH": path}, capture_output=True, text=True, check=False
    )
    if check and result.returncode:
        reason = (result.stderr.strip() or result.stdout.strip() or "it said nothing").splitlines()[-1]
        raise PlanError(f"{' '.join(command[:2])} refused: {reason}")
    return result.stdout if not result.returncode or check else ""
