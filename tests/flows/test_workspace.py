"""A run's own folder: what it changes and keeps, and what it must leave alone."""

import os
import subprocess
from pathlib import Path

import pytest

from flows.graph import PlanError
from flows.workspace import held, isolated, nested, snapshot

HOSTILE = ["; touch pwned", "--upload-pack=`touch pwned` $(touch pwned)", "../../outside\nb"]


def git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], capture_output=True, text=True, check=True, timeout=60).stdout.strip()


def dvc(*arguments: str) -> str:
    return subprocess.run(["dvc", *arguments], capture_output=True, text=True, check=True, timeout=60).stdout.strip()


def test_a_run_changes_its_own_folder_and_is_kept_as_a_branch(workspace):
    dvc("repro", "-q", "prepare")
    git("add", "-A")
    before = git("status", "--porcelain")
    changes = {"modalities.speech.pretrain.batch": 9, "seed": 4}
    with isolated("one", None, changes, ["pretrain@speech"]) as run:
        assert Path.cwd() == run.folder == workspace / "state/runs/one"
        assert Path("speech.txt").read_text() == "speech\n"  # checked out of the project's cache
        assert not Path("vision.txt").exists()
        dvc("repro", "-q", "pretrain@speech")
        difference = run.difference()
        commit = run.commit("Done")
    assert Path.cwd() == workspace
    assert "+seed: 4" in difference
    assert "+    pretrain: {batch: 9, loop: {updates: 4}}  # a comment to keep" in difference
    assert "+    v2: {pretrain: {batch: 9}}" in difference
    assert git("rev-parse", "--short", "runs/one") == commit
    assert git("diff", "--name-only", f"{run.base}", "runs/one").splitlines() == [
        "dvc.lock",
        "params.yaml",
        "speech.csv",
        "speech.json",
    ]
    assert git("status", "--porcelain") == before
    assert not Path("state/runs/one").exists()
    assert "seed" in dvc("params", "diff", "HEAD", "runs/one")

    with isolated("two", None, changes, ["pretrain@speech"]):  # the same again: the cache has it
        assert "is cached - skipping run" in dvc("repro", "pretrain@speech")


def test_a_snapshot_holds_edits_and_new_files_and_leaves_the_index_alone(workspace):
    assert snapshot() == git("rev-parse", "HEAD")
    Path("params.yaml").write_text(Path("params.yaml").read_text().replace("seed: 0", "seed: 8"))
    Path("new.py").write_text("new = 1\n")
    before = git("status", "--porcelain")
    commit = snapshot()
    assert git("show", f"{commit}:new.py") == "new = 1"
    assert "seed: 8" in git("show", f"{commit}:params.yaml")
    assert git("rev-parse", f"{commit}^") == git("rev-parse", "HEAD")
    assert git("status", "--porcelain") == before


def test_two_runs_live_side_by_side_and_a_killed_one_is_cleared_away(workspace):
    with isolated("first", None, {"seed": 1}, []) as first:
        (workspace / "state/runs/dead").mkdir()
        (workspace / "state/runs/dead.lock").touch()
        git("-C", str(workspace), "worktree", "prune")

        os.chdir(workspace)
        with isolated("second", None, {"seed": 2}, []) as second:
            assert "seed: 1" in (first.folder / "params.yaml").read_text()
            assert "seed: 2" in (second.folder / "params.yaml").read_text()
            assert not (workspace / "state/runs/dead").exists()
            with pytest.raises(BlockingIOError), held(workspace / "state/runs/first.lock"):
                pass
        assert first.folder.exists()


def test_a_corpus_that_git_ignores_is_there_and_stays(workspace):
    with Path(".gitignore").open("a") as ignored:
        ignored.write("/raw/\n")
    with Path("dvc.yaml").open("a") as pipeline:
        pipeline.write("  count:\n    cmd: ls raw/corpus > count.txt\n    deps: [raw/corpus]\n    outs: [count.txt]\n")
    corpus = Path("raw/corpus")
    corpus.mkdir(parents=True)
    (corpus / "a").touch()
    with isolated("one", None, {}, ["count"]):
        dvc("repro", "-q", "count")
        assert Path("count.txt").read_text() == "a\n"
        assert not Path("speech.txt").exists()  # what a stage makes is not linked
    assert (corpus / "a").exists()
    assert "raw" not in git("show", "--stat", "runs/one")


def test_hostile_parameters_reach_no_shell(workspace):
    values = dict(zip(("seed", "modalities.speech.version", "modalities.vision.version"), HOSTILE, strict=True))
    with isolated("run", None, values, ["pretrain@speech"]):
        pass
    for text in HOSTILE:
        with pytest.raises(PlanError), isolated("run", text, {}, []):
            pass
    assert not list(workspace.rglob("pwned"))
    assert not list(workspace.parent.glob("outside*"))


def test_keys_that_params_yaml_lacks_are_named():
    with pytest.raises(PlanError, match=r"params.yaml has no seed; add it"):
        nested({"seed": 1}, {})
    below = {"m": {"a": {"x": 1, "v2": {"x": 2}}}}
    assert nested({"m.a.x": 3}, below) == {"m": {"a": {"x": 3, "v2": {"x": 3}}}}
