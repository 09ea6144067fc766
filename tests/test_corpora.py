"""Real corpora, as they come: one changed line of params.yaml (and the names of columns) takes them to scores."""

import polars as pl
import pytest
import torch

from d2v_core.config import build
from stages import readers
from stages.layouts import CorpusConfig, manifest
from tests.tiny import Project

MEAN = [0.5, 0.5, 0.5]


def train_and_score(project: Project, modality: str, task: str) -> dict:
    """Pretrain and fine-tune a little; return the scores of the pretrained model on test."""
    project.done("pretrain", modality)
    for origin in ("pretrained", "scratch"):
        project.done("finetune", task, origin)
    project.done("evaluate", task)
    return project.json(f"metrics/{task}/evaluate.json")["pretrained"]["test"]


def rows(table: str) -> dict[str, int]:
    return {split: len(pl.read_ipc(f"data/tables/{table}/{split}-*.arrow")) for split in ("train", "valid", "test")}


def test_librispeech_trains_and_is_transcribed(project, corpora):
    project.set(modalities__speech__corpus__raw=str(corpora / "speech/LibriSpeech"))
    project.done("vocabulary", "speech")
    symbols = project.json("data/vocabulary/speech/vocabulary.json")["symbols"]
    assert symbols[5:9] == ["E", "T", "A", "O"]
    assert set(symbols[5:]) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZ'")
    project.done("prepare", "speech")
    counts = project.json("metrics/speech/counts.json")
    assert (counts["seen"], counts["dropped"]) == (240, {})
    minutes = {split: at["seconds"] / 60 for split, at in counts["splits"].items()}
    assert minutes == {
        split: pytest.approx(is_, abs=0.1) for split, is_ in (("train", 39.1), ("valid", 5.1), ("test", 5.4))
    }
    speakers = [set(pl.read_ipc(f"data/tables/speech/{s}-00000.arrow")["id"].str.split("-").list[0]) for s in minutes]
    assert [len(each) for each in speakers] == [12, 2, 2]
    assert len(set.union(*speakers)) == 16
    project.set(tasks__transcribe__train__batch=20, modalities__speech__pretrain__batch=8)
    scores = train_and_score(project, "speech", "transcribe")
    assert 0 < scores["letter_error_rate"]["mean"] <= 400


def test_flowers_are_split_and_classified(project, corpora):
    project.set(
        modalities__vision__corpus__raw=str(corpora / "vision/flowers"),
        modalities__vision__table={"size": 32, "channels": 3},
        modalities__vision__model__augment__mean=MEAN,
        modalities__vision__model__augment__std=MEAN,
        modalities__vision__model__local__patch=8,
    )
    project.done("vocabulary", "vision")
    project.done("prepare", "vision")
    assert rows("vision") == {"train": 120, "valid": 40, "test": 40}
    assert project.json("data/tables/vision/index.json")["classes"] == [
        "daisy", "dandelion", "roses", "sunflowers", "tulips",
    ]  # fmt: skip
    assert 0 <= train_and_score(project, "vision", "digits")["accuracy"]["mean"] <= 100


@pytest.fixture
def novel(project, corpora) -> Project:
    """A project with the vocabulary of one English novel: of the training ones there are more than a test needs."""
    where = {"raw": str(corpora / "text/gutenberg/test"), "holdout": {"valid": 0.0, "test": 0.0}}
    project.set(modalities__text__corpus=project.params["modalities"]["text"]["corpus"] | where)
    project.set(modalities__text__table={"vocabulary": 500, "tokens": 32}, modalities__text__pretrain__batch=512)
    project.done("vocabulary", "text")
    return project


def test_a_novel_is_read_and_sst_2_and_banking77_classified(novel, corpora):
    novel.done("prepare", "text")
    frame = pl.read_ipc("data/tables/text/train-00000.arrow")
    assert frame["tokens"].list.max().max() < 499
    assert (frame["tokens"].list.explode() == 3).mean() < 0.005
    topics = novel.params["labelled"]["topics"]["corpus"]
    sentiment = topics | {"raw": str(corpora / "text/glue/SST-2"), "parts": {"train": "train", "dev": "test"}}
    intents = topics | {"raw": str(corpora / "text/banking77"), "sentence": "text", "category": "category"}
    for corpus, test, classes in ((sentiment, 872, 2), (intents, 3080, 77)):
        novel.set(labelled__topics__corpus=corpus)
        novel.done("prepare", "topics")
        found = rows("topics")
        assert found["test"] == test
        assert found["valid"] == pytest.approx((found["train"] + found["valid"]) * 0.1, abs=1)
        assert len(novel.json("data/tables/topics/index.json")["classes"]) == classes
        assert 0 <= train_and_score(novel, "text", "topics")["accuracy"]["mean"] <= 100


def items(raw: object, layout: str, **changes: object) -> pl.DataFrame:
    values = {"raw": str(raw), "layout": layout, "holdout": {"valid": 0.1, "test": 0.1}, "rows_per_shard": 100}
    return manifest(build(CorpusConfig, values | {"max_dropped": 0.0} | changes, "corpus"), seed=0)


def test_spoken_digits_are_read_from_their_archive(project, corpora):
    columns = {"path": "file", "category": "digit", "part": "official_split"}
    corpus = {"raw": str(corpora / "speech/fsdd.tar.xz"), "layout": "manifest", "holdout": {"valid": 0.2, "test": 0.0}}
    project.set(modalities__speech__corpus={**corpus, **columns, "rows_per_shard": 1000, "max_dropped": 0.02})
    project.set(modalities__speech__vocabulary={"kind": "none"})
    project.done("vocabulary", "speech")
    project.done("prepare", "speech")
    counts = project.json("metrics/speech/counts.json")
    assert counts["seen"] == 3000
    assert set(counts["dropped"]) <= {"duration"}
    assert counts["splits"]["test"]["seen"] == 300
    assert project.json("data/tables/speech/index.json")["classes"] == [str(digit) for digit in range(10)]
    speakers = [
        set(pl.read_ipc(f"data/tables/speech/{s}-*.arrow")["id"].str.split("_").list[1]) for s in counts["splits"]
    ]
    assert not speakers[0] & speakers[1]


def test_sixty_thousand_images_stay_in_their_archive(corpora):
    found = items(corpora / "vision/cifar10-jpeg.tar.xz", "imagefolder")
    assert found["split"].value_counts().sort("split")["count"].to_list() == [10000, 45000, 5000]
    assert found["label"].n_unique() == 10
    path = found.filter(pl.col("id") == "train/frog/0042")["path"].item()
    assert tuple(readers.read_image(path, 3).shape) == (3, 32, 32)


GLUE = {
    "CoLA": (8551, 1043, ["0", "1"]),
    "RTE": (2490, 277, None),
    "SST-2": (67349, 872, ["0", "1"]),
    "WNLI": (635, 71, None),
}


@pytest.mark.parametrize("task", GLUE)
def test_glue_is_read_as_it_was_downloaded(corpora, task):
    train, dev, classes = GLUE[task]
    found = items(corpora / "text/glue" / task, "glue")
    assert found.equals(items(corpora / "text/glue" / task, "auto"))
    counts = dict(found["split"].value_counts().iter_rows())
    assert counts["valid"] == dev
    assert counts["train"] + counts["test"] == train
    assert found["label"].null_count() == 0
    assert classes is None or sorted(set(found["label"])) == classes
    assert (found["pair"].null_count() == 0) == (task in ("RTE", "WNLI"))


def test_pairs_of_rte_are_told_apart_and_cola_has_its_correlation(novel, corpora):
    topics = novel.params["labelled"]["topics"]["corpus"] | {"layout": "glue", "holdout": {"valid": 0.1, "test": 0.05}}
    novel.done("prepare", "text")
    for task, metrics in (("RTE", ["accuracy", "macro_f1", "f1", "matthews"]), ("CoLA", None)):
        novel.set(labelled__topics__corpus=topics | {"raw": str(corpora / "text/glue" / task)})
        novel.done("prepare", "topics")
        frame = pl.read_ipc("data/tables/topics/valid-00000.arrow")
        joined = frame["tokens"].list.eval((pl.element() == 2) & (pl.element().shift(1) == 2)).list.sum()
        assert (joined == 1).all() if task == "RTE" else (joined == 0).all()
        assert frame["tokens"].list.len().max() <= 32
        if metrics:
            assert list(train_and_score(novel, "text", "topics")) == metrics


@pytest.mark.parametrize(
    ("raw", "layout", "names"),
    [
        ("speech/LibriSpeech", "librispeech", {}),
        ("vision/flowers", "imagefolder", {}),
        ("text/gutenberg", "text", {}),
        ("text/banking77", "tsv", {"sentence": "text", "category": "category"}),
    ],
)
def test_auto_finds_the_layout(corpora, raw, layout, names):
    assert items(corpora / raw, "auto", **names).equals(items(corpora / raw, layout, **names))


def test_every_exif_orientation_is_turned_upright(corpora):
    paths = sorted((corpora / "vision/exif-orientation").glob("Portrait_*.jpg"))
    upright, *others = [readers.read_image(path, 1).float() for path in paths]
    small = torch.nn.functional.adaptive_avg_pool2d
    for path, image in zip(paths[1:], others, strict=True):
        assert image.shape == upright.shape, path.name
        assert (small(image, 24) - small(upright, 24)).abs().mean() < 3, path.name
