"""The whole DAG, small: it runs, knows what is out of date, gives the same bytes again, and DVC's commands work on it.

Speech is left out of params.yaml, so every test here also shows that dvc.yaml follows what is in it.
"""

import csv
import fcntl
import json
import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest
import yaml

from d2v_core.run import digest
from tests.nightly import nightly
from tests.tiny import ROOT, environment, small_params, words

WHO = {f"GIT_{role}_{what}": "tests@example.org" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
STAGES = {
    *("sample@speech", "sample@vision", "sample@text", "sample@topics", "label@topics", "report"),
    *(f"{stage}@{modality}" for stage in ("vocabulary", "prepare", "pretrain") for modality in ("vision", "text")),
    *(f"{stage}@{task}" for stage in ("finetune", "scratch", "probe", "evaluate") for task in ("digits", "topics")),
}


def without_speech() -> dict:
    params = small_params()
    del params["modalities"]["speech"], params["tasks"]["transcribe"]
    params["modalities"]["text"]["table"] = {"vocabulary": 200, "tokens": 16}
    for split in ("train", "dev", "test"):
        speakers = params["sample"]["speech"][split]["speakers"][:1]
        params["sample"]["speech"][split] = {"utterances_per_speaker": 1, "speakers": speakers}
    return params


def run(folder: Path, *command: str) -> str:
    """Run a command in ``folder`` on the sources that are there, and return what it printed."""
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment(PYTHONPATH=str(folder), **WHO),
        capture_output=True,
        text=True,
        timeout=900,  # on a busy machine
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def commit(folder: Path, message: str) -> None:
    run(folder, "git", "add", "--all")
    run(folder, "git", "commit", "--quiet", "--message", message)


def build(folder: Path, params: dict, *targets: str) -> None:
    """Copy the sources to ``folder``, commit them, run the pipeline to its ``targets`` and commit what it changed."""
    for name in ("d2v_core", "stages"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / ".dvc").mkdir()
    for name in ("dvc.yaml", ".dvcignore", ".gitignore", ".dvc/config", ".dvc/plots.html"):
        shutil.copy(ROOT / name, folder / name)
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    run(folder, "git", "init", "--quiet")
    commit(folder, "Sources")
    run(folder, "dvc", "repro", *targets)
    commit(folder, "Results")


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A repository in which everything is up to date; one for all workers, so no test may change it."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with (shared / "pipeline.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (shared / "pipeline").exists():
            temporary = shared / "pipeline.tmp"
            shutil.rmtree(temporary, ignore_errors=True)
            build(temporary, without_speech())
            temporary.rename(shared / "pipeline")
    return shared / "pipeline"


@pytest.fixture
def repository(finished, tmp_path) -> Path:
    """A copy of the finished repository to change."""
    return Path(shutil.copytree(finished, tmp_path / "repository", symlinks=True))


def test_every_stage_of_what_params_has_was_run_and_nothing_is_left_to_do(finished):
    lock = yaml.safe_load((finished / "dvc.lock").read_text())
    assert set(lock["stages"]) == STAGES
    for stage in lock["stages"].values():
        assert all((finished / out["path"]).exists() for out in stage["outs"])
    assert "up to date" in run(finished, "dvc", "repro")
    assert run(finished, "git", "status", "--porcelain") == ""


def test_the_report_shows_every_modality_and_task(finished):
    page = (finished / "reports/index.html").read_text()
    for name in ("vision", "text", "digits", "topics"):
        assert name in page
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_running_everything_again_gives_the_same_bytes(repository):
    before = (repository / "dvc.lock").read_text()
    said = run(repository, "dvc", "repro", "--force")
    assert said.count("> python -m stages.") == len(STAGES)
    assert (repository / "dvc.lock").read_text() == before
    assert run(repository, "git", "status", "--porcelain") == ""


def stale_after_an_edit(repository: Path, path: str) -> set[str]:
    with (repository / path).open("a") as source:
        source.write("# edited\n")
    return set(json.loads(run(repository, "dvc", "status", "--json")))


def test_an_edit_of_the_scores_makes_stale_what_is_scored_and_chosen_and_no_pretraining(repository):
    stale = stale_after_an_edit(repository, "stages/metrics.py")
    stages = ("finetune", "scratch", "probe", "evaluate")
    assert stale == {f"{stage}@{task}" for stage in stages for task in ("digits", "topics")} | {"report"}


def test_an_edit_of_a_modality_makes_stale_what_it_has_to_do_with(repository):
    stale = stale_after_an_edit(repository, "d2v_core/modalities/text.py")
    assert {"prepare@text", "label@topics", "pretrain@text", "finetune@topics", "probe@topics"} <= stale
    assert {name.partition("@")[2] for name in stale} == {"text", "topics"}
    assert not {name for name in stale if name.startswith(("sample", "vocabulary"))}


def test_dvc_shows_parameters_metrics_and_plots(repository):
    params = (repository / "params.yaml").read_text()
    (repository / "params.yaml").write_text(params.replace("seed: 0", "seed: 7", 1))
    assert json.loads(run(repository, "dvc", "params", "diff", "--json")) == {
        "params.yaml": {"seed": {"old": 0, "new": 7, "diff": 7}}
    }
    shown = json.loads(run(repository, "dvc", "metrics", "show", "--json"))[""]["data"]
    assert shown["metrics/vision/pretrain.json"]["data"]["update"] == 4
    assert "accuracy" in shown["metrics/digits/evaluate.json"]["data"]["pretrained"]["test"]
    run(repository, "dvc", "plots", "show", "--out", "pages")
    page = (repository / "pages/index.html").read_text()
    for title in ("Pretraining loss", "plots/digits/answers.csv", "plots/text/pretrain.csv"):
        assert title in page


def test_an_experiment_changes_numbers_and_runs_what_depends_on_them(repository):
    setting = "modalities.vision.pretrain"
    rate = "modalities.vision.v2.pretrain.optimizer.rate=1e-5"
    changes = ["-S", f"{setting}.loop.updates=3", "-S", rate]
    said = run(repository, "dvc", "exp", "run", "--name", "short", *changes, "pretrain@vision")
    assert said.count("> python -m stages.") == 1
    metrics = json.loads((repository / "metrics/vision/pretrain.json").read_text())
    assert metrics["update"] == 3
    assert 0 < metrics["rate"] < 1e-5
    assert "short" in run(repository, "dvc", "exp", "list", "--name-only")


@nightly("takes half a minute")
def test_the_lock_says_which_weights_pretraining_began_with(repository):
    shutil.copytree(repository / "models/pretrain/text", repository / "models/first")
    params = yaml.safe_load((repository / "params.yaml").read_text())
    start = params["modalities"]["text"]["pretrain"]["start"] = f"models/first@{digest(repository / 'models/first')}"
    (repository / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    assert set(json.loads(run(repository, "dvc", "status", "--json"))) == {"pretrain@text", "report"}
    run(repository, "dvc", "repro", "pretrain@text")
    lock = yaml.safe_load((repository / "dvc.lock").read_text())["stages"]["pretrain@text"]
    assert lock["params"]["params.yaml"]["modalities.text.pretrain"]["start"] == start
    assert "up to date" in run(repository, "dvc", "repro", "pretrain@text")


def glue_params(folder: Path) -> dict:
    """Write a tiny CoLA and RTE as they are downloaded; return parameters with their recipes, small, and text alone."""
    answers = ("entailment", "not_entailment")
    for split in ("train", "dev"):
        for task in ("CoLA", "RTE"):
            (folder / task).mkdir(parents=True, exist_ok=True)
        lines = [f"x\t{n % 2}\t\t{words(split, n)}\n" for n in range(40)]
        (folder / "CoLA" / f"{split}.tsv").write_text("".join(lines))
        pairs = [f"{n}\t{words(split, n)}\t{words(n, split)}\t{answers[n % 2]}\n" for n in range(40)]
        (folder / "RTE" / f"{split}.tsv").write_text("index\tsentence1\tsentence2\tlabel\n" + "".join(pairs))
    params = without_speech()
    params["modalities"] = {"text": params["modalities"]["text"]}
    recipes = [yaml.safe_load((ROOT / f"recipes/glue/{name}.yaml").read_text()) for name in ("cola", "rte")]
    for block in ("labelled", "tasks"):
        params[block] = {name: content for recipe in recipes for name, content in recipe[block].items()}
    for name, task in (("cola", "CoLA"), ("rte", "RTE")):
        params["labelled"][name]["corpus"] |= {"raw": str(folder / task), "holdout": {"valid": 0.0, "test": 0.2}}
        params["tasks"][name]["train"] |= {"batch": 64, "seeds": [0, 1]}
        params["tasks"][name]["train"]["loop"] |= {"updates": 4, "log_every": 2}
    return params


@nightly("takes two minutes")
def test_the_sweep_of_glue_in_the_docs_is_run_and_averaged(tmp_path):
    page = (ROOT / "docs/experiments.md").read_text(encoding="utf-8").partition("## GLUE")[2].partition("\n## ")[0]
    page = page.replace("1e-5,2e-5,4e-5,6e-5", "1e-5,6e-5").replace("1e-5 2e-5 3e-5 4e-5", "1e-5 4e-5")
    each, together, average = re.findall(r"```(?:sh|python)\n(.*?)```", page, re.DOTALL)
    repository = tmp_path / "repository"
    build(repository, glue_params(tmp_path / "glue"), "label@cola", "label@rte", "pretrain@text")
    for block in (each, together):
        queue, _, shown = block.partition("dvc exp show")
        run(repository, "bash", "-ec", f"{{ {queue}}} > {tmp_path}/queue.log 2>&1")  # or the worker holds our pipe open
        deadline = time.monotonic() + 900
        while {"Queued", "Running"} & set((status := run(repository, "dvc", "queue", "status")).split()):
            assert time.monotonic() < deadline, status
            time.sleep(3)
        assert "Success" in status, status
        assert "Failed" not in status, status
        run(repository, "bash", "-ec", f"dvc exp show{shown}")
    rows = list(csv.DictReader((repository / "sweep.csv").read_text().splitlines()))
    scored = [row["metrics/rte/evaluate.json:pretrained.valid.accuracy.mean"] for row in rows]
    assert sum(score not in ("", "!") for score in scored) == 4
    found = run(repository, "python", "-c", average)
    assert all(f"glue-{rate}e-5" in found for rate in (1, 4)), found
