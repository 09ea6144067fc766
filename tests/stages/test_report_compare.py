"""Runs side by side: folders, revisions and experiments; what differs and by how much."""

import subprocess
from pathlib import Path

import pytest
import yaml

from d2v_core.errors import UserError
from stages.report import __main__ as report
from tests.stages.test_report import spread, text, write_csv, write_json, write_scores
from tests.tiny import environment

pytestmark = pytest.mark.usefixtures("home")
WHO = {f"GIT_{role}_{what}": "tests@example.org" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}


def write_run(folder: str, accuracy: float, rate: float, updates: int = 3) -> None:
    ours = {"accuracy": spread(accuracy - 0.5, accuracy + 0.5) | {"low": accuracy - 5, "high": accuracy + 5}}
    write_scores(f"{folder}/metrics/birds/evaluate.json", pretrained=ours, scratch={"accuracy": spread(60.0, 61.0)})
    write_json(f"{folder}/metrics/radar/pretrain.json", {"update": updates, "loss": 0.125, "target_spread": 0.5})
    rows = [{"update": update, "loss": rate / update, "target_spread": 0.5} for update in range(1, updates + 1)]
    write_csv(f"{folder}/plots/radar/pretrain.csv", rows)
    write_csv(f"{folder}/plots/birds/pretrained.csv", [{"seed": 0, **row} for row in rows])
    settings = {"seed": 0, "modalities": {"radar": {"pretrain": {"rate": rate}}}}
    Path(folder, "params.yaml").write_text(yaml.safe_dump(settings))


def page(*names: str) -> str:
    report.main("--compare", *names)
    return Path("reports/compare.html").read_text()


def run(*command: str) -> None:
    done = subprocess.run(command, env=environment(**WHO), capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


def test_scores_parameters_and_curves_of_folders_stand_side_by_side() -> None:
    write_run("before", 70.0, 0.001)
    write_run("after", 80.0, 0.002, updates=5)
    shown = text(page("before", "after"))
    assert "modalities.radar.pretrain.rate 0.001 0.002" in shown
    assert "seed" not in shown.partition("Tasks")[0].partition("Parameters")[2]
    assert "pretrained 70.0 ± 0.7 [65.0, 75.0] n = 2 80.0 ± 0.7 +10.0 better [75.0, 85.0] n = 2" in shown
    assert "scratch 60.5 ± 0.7 n = 2 60.5 ± 0.7 +0.0 not clear n = 2" in shown
    assert "update 3 5" in shown
    for title in ("Pretraining loss", "Spread of the targets", "Training loss, pretrained"):
        assert title in shown


def test_what_only_one_run_has_is_still_shown() -> None:
    write_run("before", 70.0, 0.001)
    write_run("after", 80.0, 0.001)
    Path("before/metrics/birds/evaluate.json").unlink()
    assert "accuracy ↑ test pretrained – 80.0 ± 0.7" in text(page("before", "after"))


def test_words_from_parameters_stay_words() -> None:
    write_run("before", 70.0, 0.001)
    write_run("after", 80.0, 0.001)
    Path("after/params.yaml").write_text(yaml.safe_dump({"seed": 0, "modalities": {"<script>": {"model": {"a": 1}}}}))
    assert "<script" not in page("before", "after")


def test_revisions_experiments_and_the_workspace_are_runs() -> None:
    run("git", "init", "--quiet", "--initial-branch=main")
    run("dvc", "init", "--quiet")
    write_run(".", 70.0, 0.001)
    run("git", "add", "--all")
    run("git", "commit", "--quiet", "--message", "before")
    write_run(".", 75.0, 0.002)
    run("dvc", "exp", "save", "--name", "faster")
    write_run(".", 80.0, 0.003)
    shown = text(page("main", "faster", "workspace"))
    assert "rate 0.001 0.002 0.003" in shown
    assert "70.0 ± 0.7 [65.0, 75.0] n = 2 75.0 ± 0.7 +5.0 better [70.0, 80.0] n = 2 80.0 ± 0.7 +10.0 better" in shown
    assert "rate 0.001 0.003" in text(page())
    with pytest.raises(UserError, match="nothing is neither a folder nor a revision"):
        page("main", "nothing")


def test_a_folder_without_metrics_and_an_unknown_option_are_refused() -> None:
    Path("empty").mkdir()
    with pytest.raises(UserError, match="empty has no metrics"):
        page("empty")
    with pytest.raises(UserError, match="--against is not known"):
        report.main("--against", "HEAD")
