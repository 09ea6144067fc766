"""Tables to models to scores, for every modality; and what a trainer that was killed leaves to the next one."""

import csv
import json
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from d2v_core.run import read_config, read_weights
from d2v_core.training import checkpoint
from stages import finetune, pretrain, tasks
from stages.training import CsvLog, utilised
from tests.tiny import Project, contents

TASKS = {"transcribe": ("speech", "speech"), "digits": ("vision", "vision"), "topics": ("text", "topics")}
STATE = Path("state/checkpoints")


def rows(path: str) -> list[dict[str, str]]:
    with Path(path).open(newline="") as lines:
        return list(csv.DictReader(lines))


@pytest.mark.parametrize(("task", "version"), [(task, version) for task in TASKS for version in (1, 2)])
def test_a_modality_goes_from_its_table_to_scores(project, task, version):
    modality, table = TASKS[task]
    project.set(**{f"modalities__{modality}__version": version})
    project.prepare(*dict.fromkeys([modality, table]))
    project.done("pretrain", modality)
    for origin in ("pretrained", "scratch"):
        project.done("finetune", task, origin)
    project.done("probe", task)
    said = project.done("evaluate", task)

    curve = rows(f"plots/{modality}/pretrain.csv")
    assert [int(row["update"]) for row in curve] == [2, 4]
    assert {"loss", "target_spread", "prediction_spread", "position_share"} <= curve[0].keys()
    numbers = project.json(f"metrics/{modality}/pretrain.json")
    assert numbers["loss"] == float(curve[-1]["loss"])
    assert numbers["least_target_spread"] == min(float(row["target_spread"]) for row in curve)
    config = read_config(Path("models/pretrain") / modality)
    assert (config["modality"], config["version"], config["updates"], config["seed"]) == (modality, version, 4, 0)

    assert [(row["seed"], row["update"]) for row in rows(f"plots/{task}/scratch.csv")] == [("0", "2"), ("0", "4")]
    truth = pl.read_ipc(f"data/tables/{table}/test-00000.arrow")
    answers = pl.read_csv(f"plots/{task}/answers.csv")
    assert answers.columns == ["origin", "seed", "id", "actual", "predicted"]
    for origin in ("pretrained", "scratch"):
        assert answers.filter(pl.col("origin") == origin)["id"].to_list() == truth["id"].to_list()
    binary = ["f1", "matthews"] if task == "topics" else []
    rates = ["word_error_rate", "letter_error_rate", "word_substitutions", "word_insertions", "word_deletions"]
    metrics = {"transcribe": rates}.get(task, ["accuracy", "macro_f1", *binary])
    probed = {"transcribe": metrics}.get(task, ["linear_few", "linear_all", "neighbours"])
    for path, origins, names in (
        (f"metrics/{task}/evaluate.json", ["pretrained", "scratch"], metrics),
        (f"metrics/{task}/probe.json", ["pretrained", "random"], probed),
    ):
        found = project.json(path)
        assert list(found) == origins
        for origin in origins:
            assert list(found[origin]) == ["valid", "test"]
            assert list(found[origin]["test"]) == names
            assert all(score["low"] <= score["mean"] <= score["high"] for score in found[origin]["test"].values())
    assert f"{task} pretrained: {metrics[0]}" in said
    assert not project.unfinished


def test_every_seed_trains_a_model_of_its_own_and_both_origins_see_the_same_rows(project):
    project.set(tasks__digits__train__seeds=[3, 5], modalities__vision__pretrain__loop__updates=2)
    project.prepare("vision").done("pretrain", "vision")
    for origin in ("pretrained", "scratch"):
        project.done("finetune", "digits", origin)
    project.done("evaluate", "digits")
    weights = [read_weights(Path(f"models/finetune/digits/scratch/seed-{seed}"), "head.") for seed in (3, 5)]
    assert any((weights[0][name] != weights[1][name]).any() for name in weights[0])
    scores = project.json("metrics/digits/evaluate.json")["scratch"]["test"]["accuracy"]
    assert len(scores["values"]) == 2
    assert scores["deviation"] is not None
    curves = {origin: rows(f"plots/digits/{origin}.csv") for origin in ("pretrained", "scratch")}
    assert [(row["seed"], row["update"]) for row in curves["pretrained"]] == [
        (row["seed"], row["update"]) for row in curves["scratch"]
    ]


def test_the_pretrained_origin_starts_from_the_student(project):
    project.set(tasks__digits__train__optimizer__rate=1e-30, tasks__digits__train__optimizer__weight_decay=0.0)
    project.set(modalities__vision__version=1)
    project.prepare("vision").done("pretrain", "vision")
    project.done("finetune", "digits", "pretrained")
    project.done("finetune", "digits", "scratch")
    student = read_weights(Path("models/pretrain/vision"), "encoder.")
    tuned, scratch = (read_weights(tasks.run_folder("digits", origin, 0), "encoder.") for origin in tasks.ORIGINS)
    assert tuned.keys() == scratch.keys()
    assert student.keys() - tuned.keys() == {"trunk.final_norm.weight", "trunk.final_norm.bias"}, (
        "the pooled norm is new"
    )
    assert all((student[name] - tuned[name]).abs().max() < 1e-12 for name in tuned)
    assert any((student[name] - scratch[name]).abs().max() > 1e-3 for name in tuned)


LONG = {"updates": 120, "accumulate": 1, "log_every": 7, "save_every": 10}


def trained(project: Project) -> dict[str, bytes]:
    paths = ["models/pretrain/text/model.safetensors", "models/pretrain/text/config.json"]
    paths += ["plots/text/pretrain.csv", "metrics/text/pretrain.json"]
    return {path: (project.folder / path).read_bytes() for path in paths}


def forget(project: Project) -> None:
    for folder in ("models", "plots", "state"):
        shutil.rmtree(project.folder / folder, ignore_errors=True)


@pytest.fixture
def text(project) -> Project:
    project.set(modalities__text__pretrain__loop=LONG)
    return project.prepare("text")


def kill_after_a_checkpoint(project: Project) -> None:
    """Start pretraining in a process of its own and end it as a power cut would."""
    process = project.start("pretrain", "text")
    while not list((project.folder / STATE).glob("*/*/LAST")):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.001)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def test_a_killed_run_goes_on_and_ends_in_the_same_bits(text):
    pretrain.main("text")
    expected = trained(text)
    forget(text)
    kill_after_a_checkpoint(text)
    assert not (text.folder / "models/pretrain/text").exists()
    (folder,) = (text.folder / STATE / "pretrain-text").iterdir()
    done = json.loads((folder / "LAST").read_text())
    assert done in [f"update-{update}.pt" for update in range(10, 120, 10)]
    assert [path.name for path in folder.glob("update-*.pt") if path.name == done] == [done]

    began = []
    text.monkeypatch.setattr(CsvLog, "write", noting(CsvLog.write, began))
    pretrain.main("text")
    first = int(done.removeprefix("update-").removesuffix(".pt")) + 1
    assert began[0] == min(update for update in [*range(7, 120, 7), 120] if update >= first)
    assert trained(text) == expected
    assert [path.name for path in folder.iterdir()] == ["lock"]


def test_sigterm_saves_after_the_update_it_is_in(text):
    text.set(modalities__text__pretrain__loop=LONG | {"updates": 4000, "save_every": 4000})
    process = text.start("pretrain", "text")
    log = text.folder / "state/speed/pretrain-text.csv"
    while not log.exists():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    (sentence,) = said.splitlines()
    update = int(sentence.removeprefix("stopped after update ").split()[0])
    assert sentence == f"stopped after update {update} of 4000; run it again to go on."
    (last,) = (text.folder / STATE / "pretrain-text").glob("*/LAST")
    assert last.read_text() == f'"update-{update}.pt"'
    assert not (text.folder / "models/pretrain/text").exists()
    assert not text.unfinished


def noting(write, updates: list[int]):
    """Return ``write`` that also notes the update of every record."""

    def noted(self, record):
        updates.append(record["update"])
        write(self, record)

    return noted


def interrupt(project: Project, update: int, stage: Callable[..., None] = pretrain.main, *arguments: str) -> None:
    """Run a stage in this process, pretraining of text if no other, and end it after the record of ``update``."""

    def write(self, record):
        written(self, record)
        if record["update"] == update:
            raise KeyboardInterrupt

    written = CsvLog.write
    with project.monkeypatch.context() as patch:
        patch.setattr(CsvLog, "write", write)
        with pytest.raises(KeyboardInterrupt):
            stage(*(arguments or ["text"]))


@pytest.mark.parametrize(("accumulate", "version"), [(1, 1), (2, 1), (2, 2)])
def test_an_interrupted_run_goes_on_from_any_place(text, accumulate, version):
    text.set(modalities__text__version=version)
    text.set(modalities__text__pretrain__loop=LONG | {"updates": 40, "save_every": 9, "accumulate": accumulate})
    pretrain.main("text")
    expected = trained(text)
    forget(text)
    for update in (7, 14, 28):
        interrupt(text, update)
    pretrain.main("text")
    assert trained(text) == expected


def test_version_2_is_another_model_of_the_same_table(project):
    project.prepare("vision").done("pretrain", "vision")
    project.set(modalities__vision__version=2)
    project.done("pretrain", "vision")
    names = read_weights(Path("models/pretrain/vision"))
    assert "head.blocks.0.convolution.weight" in names
    assert not [name for name in names if "mask_token" in name or "relative_bias" in name]
    project.set(modalities__vision__v2={})
    assert project.refused("pretrain", "vision") == (
        "error: vision: objective.views is for version 2, and needed there; version is 2."
    )


def test_other_parameters_do_not_continue_an_old_run(text):
    text.set(modalities__text__pretrain__loop__updates=40)
    interrupt(text, 21)
    text.set(modalities__text__pretrain__optimizer__rate=1e-3)
    pretrain.main("text")
    found = trained(text)
    assert [row["update"] for row in rows("plots/text/pretrain.csv")] == ["7", "14", "21", "28", "35", "40"]
    forget(text)
    pretrain.main("text")
    assert trained(text) == found


@pytest.fixture
def topics(project) -> Project:
    loop = {"updates": 40, "accumulate": 1, "log_every": 7, "save_every": 9}
    project.set(tasks__topics__train__loop=loop)
    return project.prepare("text", "topics")


def test_fine_tuning_goes_on_where_it_was_and_ends_in_the_same_bits(topics):
    topics.set(tasks__topics__train__seeds=[0, 1])
    finetune.main("topics", "scratch")
    folder, curve = Path("models/finetune/topics/scratch"), Path("plots/topics/scratch.csv")
    expected = contents(folder), curve.read_text()
    forget(topics)
    for update in (14, 28):
        interrupt(topics, update, finetune.main, "topics", "scratch")
        assert not folder.exists()
    assert list(STATE.glob("finetune-topics-scratch/*/LAST"))
    finetune.main("topics", "scratch")
    assert (contents(folder), curve.read_text()) == expected
    assert {path.name for path in STATE.glob("finetune-topics-scratch/*/*")} == {"lock"}


@pytest.mark.parametrize(
    "changes",
    [
        {"tasks__topics__train__optimizer__rate": 1e-3},
        {"tasks__topics__train__per_class": 2},
        {"modalities__text__model__trunk__dropout": 0.5},
    ],
)
def test_other_parameters_do_not_continue_an_old_fine_tuning(topics, changes):
    interrupt(topics, 28, finetune.main, "topics", "scratch")
    topics.set(**changes)
    finetune.main("topics", "scratch")
    found = contents(Path("models"))
    forget(topics)
    finetune.main("topics", "scratch")
    assert contents(Path("models")) == found


def test_another_table_does_not_continue_an_old_run(text):
    text.set(modalities__text__pretrain__loop__updates=40)
    interrupt(text, 21)
    shutil.copy("data/raw/text/test/0.txt", "data/raw/text/train/new.txt")
    text.done("prepare", "text")
    pretrain.main("text")
    assert len(list((STATE / "pretrain-text").iterdir())) == 2
    assert len(rows("plots/text/pretrain.csv")) == 6


def test_a_second_trainer_on_the_same_state_is_refused(project):
    project.prepare("text").done("pretrain", "text")
    (folder,) = (STATE / "pretrain-text").iterdir()
    with checkpoint.only_writer(folder):
        assert project.refused("pretrain", "text") == (
            f"error: {folder} is in use by another trainer; wait for it or stop it."
        )
    project.done("pretrain", "text")


def test_a_finished_run_leaves_nothing_but_its_lock_and_can_be_repeated(project):
    project.prepare("text").done("pretrain", "text")
    before = trained(project)
    (folder,) = (STATE / "pretrain-text").iterdir()
    assert [path.name for path in folder.iterdir()] == ["lock"]
    project.done("pretrain", "text")
    assert trained(project) == before


def test_state_goes_where_the_environment_says(project, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("scratch")
    project.monkeypatch.setenv("D2V_STATE", str(elsewhere))
    project.prepare("text").done("pretrain", "text")
    assert [path.name for path in elsewhere.iterdir()] == ["pretrain-text"]
    assert not STATE.exists()


def test_a_rate_a_hundred_times_too_high_is_flagged_at_the_first_record_and_the_right_one_never(project):
    project.prepare("text")
    assert "warning" not in project.run("pretrain", "text").err
    high = 100 * project.params["modalities"]["text"]["pretrain"]["optimizer"]["rate"]
    project.set(modalities__text__pretrain__optimizer__rate=high)
    said = project.run("pretrain", "text").err
    assert "warning: pretrain-text at update 2: an update may change weights by" in said


@pytest.mark.parametrize(("peak", "said"), [(None, {}), (989, {"mfu": 0.5})])
def test_utilisation_is_the_share_of_the_stated_peak(project, peak, said):
    project.set(peak=peak)
    speed = {"teraflops_per_second": 494.5}
    assert utilised(speed) == pytest.approx(speed | said)
