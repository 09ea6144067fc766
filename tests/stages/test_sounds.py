"""Classes of sounds, one or several in each: from recordings and a manifest to scores that chance does not reach."""

import csv
import json
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
import soundfile
from pyarrow import parquet

from d2v_core.data.table import read_index
from stages.layouts import CorpusConfig, manifest
from stages.layouts.config import HoldoutConfig
from stages.prepare import names_in
from tests.tiny import Project

TONES = {"low": 400, "mid; or so": 1200, "high": 3000}
HEARD = [["low"], ["mid; or so"], ["high"], ["low", "high"], ["mid; or so", "low"]]
LOOP = {"updates": 35, "accumulate": 1, "log_every": 35, "save_every": 100}


def write_sounds(root: Path, suffix: str) -> None:
    """Write tones, one or two at once, in noise, and a manifest that names them, in a list or with bars between."""
    rng = np.random.default_rng(0)
    time = np.arange(4000) / 16000
    rows = []
    for split, count in (("train", 40), ("valid", 20), ("test", 20)):
        for number in range(count):
            labels = HEARD[number % len(HEARD)]
            name = f"{split}-{number:03d}.wav"
            wave = sum(np.sin(2 * np.pi * (TONES[label] * time + rng.random())) for label in labels)
            (root / "audio").mkdir(parents=True, exist_ok=True)
            soundfile.write(root / "audio" / name, 0.2 * wave + rng.normal(0, 0.05, len(time)), 16000)
            rows.append({"file": f"audio/{name}", "label": labels, "split": split})
    if suffix == "jsonl":
        (root / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        with (root / "manifest.csv").open("w", newline="") as lines:
            writer = csv.DictWriter(lines, rows[0])
            writer.writeheader()
            writer.writerows(row | {"label": " | ".join(row["label"])} for row in rows)


@pytest.fixture
def sounds(project) -> Project:
    """A project with sounds in a manifest and a task on them, whose front end is small and hears."""
    corpus = {"raw": "data/raw/sounds", "layout": "manifest", "separator": "|", "rows_per_shard": 100}
    corpus |= {"holdout": {"valid": 0.1, "test": 0.1}, "max_dropped": 0.0}
    project.params["labelled"]["sounds"] = {"modality": "speech", "corpus": corpus}
    task = project.params["tasks"].pop("transcribe")
    project.params["tasks"]["sounds"] = task | {"table": "sounds"}
    task["train"] |= {"batch": 2.5, "per_class": 0, "loop": LOOP, "seeds": [0]}
    task["train"]["optimizer"] |= {"rate": 1e-2, "beta2": 0.98}
    task["train"]["head"] = {"kind": "tags", "freeze": 0, "smoothing": 0.0}
    task["probe"] |= {"updates": 5, "layers": "weighted"}
    project.set(modalities__speech__pretrain__loop__updates=2)
    return project


def prepare(project: Project, suffix: str = "jsonl") -> None:
    write_sounds(project.folder / "data/raw/sounds", suffix)
    project.write("speech")
    project.done("vocabulary", "speech")
    project.done("prepare", "sounds")


def train(project: Project) -> None:
    project.done("prepare", "speech")
    project.done("pretrain", "speech")
    for origin in ("pretrained", "scratch"):
        project.done("finetune", "sounds", origin)
    project.done("evaluate", "sounds")


def test_sounds_with_several_labels_are_learnt_and_scored_by_average_precision(sounds):
    mixed = {"least": 0.5, "probability": 0.5}
    sounds.set(tasks__sounds__train__mix_waves=mixed)
    sounds.set(tasks__sounds__train__hide_tokens={"probability": 0.2, "length": 2})
    sounds.set(tasks__sounds__train__choose={"every": 35})
    prepare(sounds)
    assert read_index(Path("data/tables/sounds"))["classes"] == ["high", "low", "mid; or so"]
    rows = pl.read_ipc("data/tables/sounds/test-00000.arrow")
    assert rows["labels"].to_list()[:5] == [[1], [2], [0], [0, 1], [1, 2]]
    assert rows["label"].null_count() == len(rows)
    train(sounds)
    for origin, scores in sounds.json("metrics/sounds/evaluate.json").items():
        found = scores["test"]["mean_average_precision"]
        assert found["low"] <= found["mean"] <= found["high"]
        assert found["mean"] > 60, f"{origin}: chance is 47"
        chosen = pl.read_csv(f"models/finetune/sounds/{origin}/seed-0/valid.csv").to_dicts()
        assert chosen == [
            {
                "update": 35,
                "mean_average_precision": pytest.approx(scores["valid"]["mean_average_precision"]["mean"], abs=0.01),
            }
        ]
    answers = pl.read_csv("plots/sounds/answers.csv")
    assert answers["actual"].to_list()[3] == "high; low"
    classes = pl.read_csv("plots/sounds/classes.csv")
    assert classes["class"].to_list() == 2 * ["high", "low", "mid; or so"]
    assert classes["rows"].to_list() == 2 * [8, 12, 8]
    assert classes["average_precision"].mean() > 60
    sounds.done("probe", "sounds")
    probed = sounds.json("metrics/sounds/probe.json")
    assert list(probed) == ["pretrained", "random"]
    assert list(probed["random"]["test"]) == ["mean_average_precision"]


def test_sounds_with_one_label_are_learnt_and_scored_by_accuracy(sounds):
    sounds.set(tasks__sounds__train__head={"kind": "mean", "freeze": 0, "smoothing": 0.0})
    sounds.set(tasks__sounds__train__mix_waves={"least": 0.5, "probability": 0.5})
    sounds.set(tasks__sounds__probe__penalties=[1.0])
    sounds.set(labelled__sounds__corpus__separator=...)
    prepare(sounds, "csv")
    assert len(read_index(Path("data/tables/sounds"))["classes"]) == len(HEARD)
    train(sounds)
    scores = sounds.json("metrics/sounds/evaluate.json")
    assert scores["scratch"]["test"]["accuracy"]["mean"] > 40, "chance is 20"
    sounds.done("probe", "sounds")
    weighted = sounds.json("metrics/sounds/probe.json")["random"]["test"]
    assert weighted["linear_all"]["mean"] > 40, "the local features of a random encoder hear tones"


def test_labels_between_separators_are_those_of_a_list(sounds):
    prepare(sounds, "csv")
    bars = read_index(Path("data/tables/sounds"))
    (sounds.folder / "data/raw/sounds/manifest.csv").unlink()
    write_sounds(sounds.folder / "data/raw/sounds", "jsonl")
    sounds.done("prepare", "sounds")
    assert read_index(Path("data/tables/sounds")) == bars


def test_labels_that_training_does_not_have_are_left_out(sounds):
    prepare(sounds)
    path = sounds.folder / "data/raw/sounds/manifest.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[-1]["label"], lines[-2]["label"], lines[-3]["label"] = ["low", "unheard"], ["unheard"], []
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    sounds.set(labelled__sounds__corpus__max_dropped=0.5)
    sounds.done("prepare", "sounds")
    rows = pl.read_ipc("data/tables/sounds/test-00000.arrow")
    assert rows["labels"].to_list()[-2:] == [None, [1]]
    dropped = pl.read_parquet("data/tables/sounds/dropped.parquet")
    assert dropped["reason"].to_list() == ["unknown label"]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"labelled__sounds__corpus__separator": ...}, "has items with several labels such as ['low']"),
        ({"labelled__sounds__corpus__separator": ";"}, "such as ['mid; or so']; set `separator` to what is in none."),
    ],
)
def test_a_list_of_labels_needs_a_separator_that_is_in_none(sounds, changes, sentence):
    sounds.set(**changes)
    write_sounds(sounds.folder / "data/raw/sounds", "jsonl")
    sounds.write("speech")
    sounds.done("vocabulary", "speech")
    assert sentence in sounds.refused("prepare", "sounds")


def test_tags_need_a_table_with_several_labels(sounds):
    sounds.set(labelled__sounds__corpus__separator=...)
    prepare(sounds, "csv")
    assert sounds.refused("finetune", "sounds", "scratch") == (
        "error: tasks.sounds.train.head.kind is 'tags', but items of data/tables/sounds have one label each; "
        "set its corpus.separator."
    )


def hugging_face(feature: object) -> dict[bytes, bytes]:
    return {b"huggingface": json.dumps({"info": {"features": {"label": feature}}}).encode()}


@pytest.mark.parametrize(
    "feature",
    [{"feature": {"names": list(TONES)}, "_type": "List"}, [{"names": list(TONES)}], {"names": list(TONES)}],
)
def test_numbers_of_labels_in_parquet_have_the_names_written_there(tmp_path, feature):
    several = not isinstance(feature, dict) or "feature" in feature
    labels = [[0], [2, 1, 7], [], None] if several else [0, 2, 7, None]
    table = pa.table({"text": ["a", "b", "c", "d"], "label": labels})
    parquet.write_table(table.replace_schema_metadata(hugging_face(feature)), tmp_path / "train.parquet")
    corpus = CorpusConfig(str(tmp_path), "parquet", HoldoutConfig(0.0, 0.0), 9, 0.0, separator="|")
    names = ["low", "high|mid; or so", None, None] if several else ["low", "high", None, None]
    assert manifest(corpus, 0)["label"].to_list() == names


def test_a_table_of_sentences_may_have_labels_between_separators(tmp_path):
    (tmp_path / "train.tsv").write_text("sentence\tlabel\none\tb, a\ntwo\t\n")
    corpus = CorpusConfig(str(tmp_path), "tsv", HoldoutConfig(0.0, 0.0), 9, 0.0, separator=",")
    labels = manifest(corpus, 0)["label"].to_list()
    assert labels == ["b, a", None]
    assert names_in(labels[0], corpus) == ["a", "b"]
    assert names_in("a,, a ,", corpus) == ["a"]
