"""DVC for people: experiments, comparisons, plots without a network, models by name, remotes, and clones that pull."""

import configparser
import os
import re
import shutil
import socket
import subprocess
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

import pytest
import yaml
from browser import page
from machines import ROOT

from tests.nightly import nightly

SECRET = "a-secret-that-no-file-may-hold"


@pytest.fixture
def run(workspace, environment):
    """Return a function that runs a command in the tiny project and gives its output."""

    def run(*command: str, folder: Path = workspace, **variables: str) -> str:
        settings = environment | {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a"}
        settings |= {"GIT_COMMITTER_EMAIL": "a@b"} | variables
        result = subprocess.run(
            command, cwd=folder, env=settings, capture_output=True, text=True, check=False, timeout=120
        )
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout + result.stderr

    return run


@pytest.fixture
def done(workspace, run):
    """Return the tiny project with everything run and committed, and its models named."""
    content = yaml.safe_load(Path("dvc.yaml").read_text())
    content["artifacts"] = {"d2v-speech": {"path": "speech.model", "type": "model", "desc": "the encoder"}}
    content["plots"] = [
        {"Loss": {"x": "update", "y": {"speech.csv": "loss"}}},
        {"answers.csv": {"template": "confusion", "x": "actual", "y": "predicted"}},
    ]
    Path("answers.csv").write_text("actual,predicted\n" + "1,1\n" * 5 + "3,1\n" * 2 + "3,3\n" * 4)
    Path("dvc.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    run("dvc", "repro", "-q")
    run("git", "add", "-A")
    run("git", "commit", "-qm", "Everything ran")
    return workspace


def test_experiments_are_run_compared_and_plotted(done, run):
    run("dvc", "exp", "run", "-S", "modalities.speech.pretrain.batch=16", "--name", "larger", "pretrain@speech")
    run("git", "checkout", "-q", "--", ".")
    shown = run("dvc", "exp", "show", "--csv", "--drop", "Created")
    assert "larger" in shown
    assert "16" in run("dvc", "params", "diff", "HEAD", "larger")
    Path("speech.json").write_text('{"loss": 1.25}\n')
    assert "-0.25" in run("dvc", "metrics", "diff")


@pytest.mark.skipif(not shutil.which("chromium"), reason="needs the program chromium")
def test_plots_are_drawn_without_a_network(done, run, tmp_path):
    config = configparser.ConfigParser()
    config.read(ROOT / ".dvc/config")
    name = config["plots"]["html_template"]
    shutil.copy(ROOT / ".dvc" / name, Path(".dvc", name))
    run("dvc", "config", "plots.html_template", name)
    Path("speech.csv").write_text("update,loss\n1,4\n2,1.5\n")
    for command, last in ((["show"], "predicted \\ actual"), (["diff", "HEAD", "workspace"], "HEAD")):
        run("dvc", "plots", *command, "--out", "page")
        html = Path("page/index.html")
        assert not re.search(r"""(src|href) *= *["']""", html.read_text())
        with page() as browser:
            text = browser.read(html.resolve().as_uri(), "Loss", "update", "loss", "workspace", last)
            assert browser.hosts <= {None}
            lines = browser.evaluate("document.querySelectorAll('figure')[0].querySelectorAll('path').length")
            assert lines == 2 * len(command[1:] or [1])  # a curve and its sample in the legend
            browser.screenshot(tmp_path / f"{command[0]}.png")
        if command[0] == "show":
            shown = text.split(last)[1].split()[:7]
            assert sorted(shown) == ["1", "1", "2", "3", "3", "4", "5"]  # two threes were taken for ones


@nightly("takes 20 seconds")
def test_a_sweep_is_queued_and_run(done, run):
    queued = run("dvc", "exp", "run", "--queue", "-S", "modalities.speech.pretrain.batch=4,8", "pretrain@speech")
    assert queued.count("Queued experiment") == 2
    run("dvc", "exp", "run", "--run-all", "-j", "1")
    table = run("dvc", "exp", "show", "--csv")
    assert table.count("exp_queued") == 0
    batches = {row["modalities.speech.pretrain.batch"] for row in rows(table)}
    assert {"4", "8"} <= batches


def rows(table: str) -> list[dict[str, str]]:
    import csv

    return list(csv.DictReader(table[table.index("Experiment") :].splitlines()))


def test_models_have_names(done, run):
    import dvc.api

    run("git", "tag", "-a", "d2v-speech@v1.0.0", "-m", "the first one")
    assert dvc.api.artifacts_show("d2v-speech", repo=str(done))["path"] == "speech.model"
    run("dvc", "artifacts", "get", str(done), "d2v-speech", "-o", "fetched")
    assert Path("fetched").read_text() == "speech\n"


def pulls_instead_of_training(done, run, tmp_path, **secrets):
    """Push everything, then check that a clone needs no training, and that the run cache comes along."""
    run("dvc", "push", "--run-cache", **secrets)
    run("git", "add", "-A")
    run("git", "commit", "-qm", "A remote", "--allow-empty")
    clone = tmp_path / "clone"
    run("git", "clone", "-q", str(done), str(clone))
    for name in ("speech", "vision"):
        assert Path("settings", f"{name}.sh").exists()
    said = run("dvc", "repro", "--pull", "--allow-missing", folder=clone, **secrets)
    assert "Running stage" not in said
    assert not (clone / "vision.model").exists()  # nothing that nobody needs is brought
    run("dvc", "pull", "speech.model", folder=clone, **secrets)
    assert (clone / "speech.model").read_text() == "speech\n"
    run("dvc", "fetch", "--run-cache", folder=clone, **secrets)
    assert list((clone / ".dvc/cache/runs").rglob("*"))
    return clone


def test_a_clone_pulls_from_a_folder(done, run, tmp_path):
    run("dvc", "remote", "add", "--default", "store", str(tmp_path / "store"))
    pulls_instead_of_training(done, run, tmp_path)


def test_a_clone_pulls_from_s3_and_no_file_holds_the_secret(done, run, tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    secrets = {"AWS_ACCESS_KEY_ID": "person", "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_DEFAULT_REGION": "us-east-1"}
    command = ["moto_server", "--host", "127.0.0.1", "--port", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        address, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 60
        while time.monotonic() < deadline:
            with suppress(OSError):
                urllib.request.urlopen(urllib.request.Request(f"{address}/store", method="PUT"), timeout=5).close()
                break
            time.sleep(0.2)
        run("dvc", "remote", "add", "--default", "store", "s3://store/d2v")
        run("dvc", "remote", "modify", "store", "endpointurl", address)
        clone = pulls_instead_of_training(done, run, tmp_path, **secrets)
    finally:
        server.terminate()
        server.wait(20)
    for folder in (done, clone):
        for file in (path for path in folder.rglob("*") if path.is_file() and os.access(path, os.R_OK)):
            assert SECRET.encode() not in file.read_bytes(), file
