"""Fine-tuning that keeps the weights with the best score on valid: which they are, and that nothing else changes."""

import csv
import math
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from d2v_core.finetuning import ChooseConfig
from d2v_core.run import read_config
from stages import choosing, finetune, tasks
from stages.training import CsvLog
from tests.ranks import on_ranks
from tests.tiny import Project, contents

LOOP = {"updates": 24, "accumulate": 2, "log_every": 5, "save_every": 7}
CHOOSE = {"every": 2, "after": 3}
RUN, CURVE = Path("models/finetune/topics/scratch"), Path("plots/topics/scratch.csv")
SCORED = [*range(4, 24, 2), 24]


@pytest.fixture
def topics(project) -> Project:
    """A task whose valid split says the opposite of what is learnt: the longer, the worse."""
    project.set(tasks__topics__train__loop=LOOP, tasks__topics__train__optimizer__rate=0.01)
    project.set(tasks__topics__train__choose=CHOOSE, tasks__topics__train__per_class=0)
    project.prepare("text")
    corpus = project.write("topics")
    swapped = {"even": "odd", "odd": "even", "label": "label"}
    rows = [line.split("\t") for line in (corpus / "train.tsv").read_text().splitlines()]
    (corpus / "dev.tsv").write_text("".join(f"{said}\t{swapped[label]}\n" for said, label in rows))
    project.done("prepare", "topics")
    return project


def scores() -> dict[int, float]:
    """Return the accuracies on valid that the run lists, by update."""
    with (RUN / "seed-0/valid.csv").open(newline="") as lines:
        return {int(row["update"]): float(row["accuracy"]) for row in csv.DictReader(lines)}


def weights() -> bytes:
    return (RUN / "seed-0/model.safetensors").read_bytes()


def forget() -> None:
    for folder in ("models", "plots", "state"):
        shutil.rmtree(folder, ignore_errors=True)


def test_the_published_weights_are_the_best_on_valid_and_not_the_last(topics):
    said = topics.done("finetune", "topics", "scratch")
    found = scores()
    assert list(found) == SCORED
    best = max(found, key=lambda update: (found[update], update))
    assert found[24] < found[best]
    assert read_config(RUN / "seed-0")["chosen_update"] == best
    assert f"topics scratch seed 0: the weights of update {best} are the best on valid" in said
    task, model = tasks.load_finetuned(tasks.read_task("topics"), "scratch", 0)
    assert task.scored(model, task.table("valid")).once()["accuracy"] == found[best]
    assert not topics.unfinished


def test_choosing_changes_nothing_of_the_training(topics):
    found = {}
    for name, choose in (("none", None), ("last", {"every": 100}), ("each", {"every": 1})):
        topics.set(tasks__topics__train__choose=choose)
        finetune.main("topics", "scratch")
        found[name] = CURVE.read_bytes(), weights(), set(contents(RUN))
        forget()
    assert found["none"][0] == found["last"][0] == found["each"][0]
    assert found["none"][1] == found["last"][1] != found["each"][1]
    assert found["last"][2] - found["none"][2] == {"seed-0/valid.csv"}


def test_scoring_leaves_the_model_as_it_was_and_draws_nothing(topics):
    task = tasks.read_task("topics")
    model = task.model()
    drawn = torch.get_rng_state()
    for learning in (True, False):
        model.train(learning)
        assert choosing.scores_of(task, model).keys() >= {"accuracy", "macro_f1"}
        assert {part.training for part in model.modules()} == {learning}
    assert torch.equal(torch.get_rng_state(), drawn)


def stopped(project: Project, update: int, name: str) -> None:
    """Fine-tune and end right after the scores or the best weights of ``update`` were written."""

    def write(self, record):
        written(self, record)
        if self.path.name == choosing.FILE and record["update"] == update and name == "scores":
            raise KeyboardInterrupt

    def keep(state, model, done, worth):
        kept(state, model, done, worth)
        if done == update:
            raise KeyboardInterrupt

    written, kept = CsvLog.write, choosing.keep
    with project.monkeypatch.context() as patch:
        patch.setattr(CsvLog, "write", write)
        patch.setattr(choosing, "keep", keep)
        with pytest.raises(KeyboardInterrupt):
            finetune.main("topics", "scratch")


def test_a_stopped_run_makes_the_same_choice(topics):
    finetune.main("topics", "scratch")
    expected, best = contents(RUN), read_config(RUN / "seed-0")["chosen_update"]
    forget()
    stopped(topics, best, "best")
    for update in (best, 18, 24):
        stopped(topics, update, "scores")
        assert not RUN.exists()
    finetune.main("topics", "scratch")
    assert contents(RUN) == expected
    assert {path.name for path in Path("state/checkpoints").glob("*/*/*")} == {"lock"}


def test_several_processes_choose_like_one(topics):
    finetune.main("topics", "scratch")
    expected, config = scores(), read_config(RUN / "seed-0")
    alone = load_file(RUN / "seed-0/model.safetensors")
    forget()
    assert on_ranks(2, lambda _: finetune.main("topics", "scratch")) == {0: None, 1: None}
    assert (scores(), read_config(RUN / "seed-0")) == (expected, config)
    for name, value in load_file(RUN / "seed-0/model.safetensors").items():
        assert (value - alone[name]).abs().max() < 1e-4, name


@pytest.mark.parametrize(
    ("metrics", "found", "worth"),
    [
        ((), {"accuracy": 60.0, "f1": 20.0}, 60.0),
        (("accuracy", "f1"), {"accuracy": 60.0, "f1": 20.0}, 40.0),
        ((), {"word_error_rate": 30.0, "letter_error_rate": 10.0}, -30.0),
        (("word_error_rate", "letter_error_rate"), {"word_error_rate": 30.0, "letter_error_rate": 10.0}, -20.0),
        (("pearson", "spearman"), {"pearson": math.nan, "spearman": 10.0}, -math.inf),
    ],
)
def test_more_is_better(metrics, found, worth):
    assert choosing.worth_of(found, ChooseConfig(1, metrics=metrics)) == worth


def test_what_cannot_be_chosen_by_is_refused(topics):
    for choose, sentence in (
        ({"every": 0}, "choose.every must be positive, not 0."),
        ({"every": 5, "after": -1}, "choose.after must not be negative, but is -1."),
        ({"after": 5}, "choose.every is missing; add it."),
        ({"every": 5, "metric": "f1"}, "choose.metric is not a known key. Did you mean 'metrics'?"),
        ({"every": 5, "metrics": ["mcc"]}, "choose.metrics must be among accuracy, macro_f1, f1, matthews, not 'mcc'."),
    ):
        topics.set(tasks__topics__train__choose=choose)
        assert topics.refused("finetune", "topics", "scratch").endswith(f"tasks.topics.train.{sentence}")
    assert not Path("state/checkpoints").exists()


def test_a_valid_split_without_labels_is_refused(project):
    project.set(tasks__transcribe__train__choose=CHOOSE)
    for transcripts in project.write("speech").glob("dev-*/*/*/*.trans.txt"):
        transcripts.unlink()
    project.done("vocabulary", "speech")
    project.done("prepare", "speech")
    assert project.refused("finetune", "transcribe", "scratch") == (
        "error: data/tables/speech has no labels in its 'valid' split to choose by; "
        "set tasks.transcribe.train.choose to null."
    )
    assert not Path("state/checkpoints").exists()


def test_transcripts_are_chosen_by_their_word_error_rate(project):
    project.set(tasks__transcribe__train__choose={"every": 1})
    project.prepare("speech").done("finetune", "transcribe", "scratch")
    folder = Path("models/finetune/transcribe/scratch/seed-0")
    with (folder / "valid.csv").open(newline="") as lines:
        wrong = {int(row["update"]): float(row["word_error_rate"]) for row in csv.DictReader(lines)}
    assert read_config(folder)["chosen_update"] == max(wrong, key=lambda update: (-wrong[update], update))
