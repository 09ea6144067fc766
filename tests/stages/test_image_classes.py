"""The published recipe of image classes, from a table with a margin to its scores."""

from pathlib import Path

import polars as pl
import pytest

from d2v_core.embedding import Embedder
from d2v_core.run import read_config, read_weights
from stages import params
from tests.tiny import COLOURS, ROOT, Project, write_image

CLASSES = [f"class {number}" for number in range(7)]
RECIPE = params.load(ROOT / "recipes" / "v1" / "imagenet-base.yaml")["tasks"]["imagenet"]["train"]


@pytest.fixture
def images(project) -> Project:
    """Seven classes of gray images, 2 pixels larger than the model reads, and the published fine-tuning."""
    for split in ("train", "val", "test"):
        for number, name in enumerate(CLASSES):
            for index in range(2):
                path = project.folder / "data/raw/vision" / split / name / f"{index}.png"
                write_image(path, list(COLOURS)[number % 3], seed=10 * number + index)
    changes = {
        "augment": RECIPE["augment"] | {"mean": [0.5], "std": [0.5]},
        "mix": RECIPE["mix"],
        "head": RECIPE["head"],
    }
    project.set(modalities__vision__table__margin=2)
    project.set(**{f"tasks__digits__train__{name}": value for name, value in changes.items()})
    project.done("vocabulary", "vision")
    project.done("prepare", "vision")
    return project


def test_images_go_from_a_table_with_a_margin_to_scores_by_class(images):
    images.done("pretrain", "vision")
    images.set(modalities__vision__table__margin=0)  # the table says how large its images are
    for origin in ("pretrained", "scratch"):
        images.done("finetune", "digits", origin)
    images.done("probe", "digits")
    said = images.done("evaluate", "digits")
    scores = images.json("metrics/digits/evaluate.json")["pretrained"]["test"]
    assert list(scores) == ["accuracy", "macro_f1", "top5"]
    assert scores["accuracy"]["mean"] <= scores["top5"]["mean"] <= 100
    assert "top5" in said

    answers, classes = (pl.read_csv(f"plots/digits/{name}.csv") for name in ("answers", "classes"))
    assert classes.columns == ["origin", "class", "rows", "precision", "recall", "f1"]
    assert classes["class"].to_list() == 2 * CLASSES
    for origin in ("pretrained", "scratch"):
        own = classes.filter(pl.col("origin") == origin)
        right = answers.filter((pl.col("origin") == origin) & (pl.col("actual") == pl.col("predicted")))
        assert own["rows"].to_list() == [2] * 7
        assert own["recall"].mean() == pytest.approx(100 * len(right) / 14, abs=0.01)
    images.done("report")
    assert "not in the expected form" not in Path("reports/index.html").read_text()

    run = read_config(Path("models/finetune/digits/pretrained/seed-0"))
    assert run["model"]["augment"]["mean"] == [0.5], "who reads the model normalises as it was trained"
    assert Embedder(Path("models/finetune/digits/pretrained/seed-0")).setup.config.augment.erase == 0.25
    assert read_config(Path("models/pretrain/vision"))["model"]["augment"]["mean"] == [0.3]


def test_every_block_starts_from_the_relative_positions_that_all_shared(images):
    loop = {"updates": 2, "accumulate": 1, "log_every": 1, "save_every": 9}
    images.set(modalities__vision__version=1, modalities__vision__pretrain__loop=loop | {"updates": 6})
    images.set(tasks__digits__train__block_bias=True, tasks__digits__train__loop=loop)
    images.set(tasks__digits__train__optimizer__rate=1e-30)
    images.done("pretrain", "vision")
    for origin in ("pretrained", "scratch"):
        images.done("finetune", "digits", origin)
    images.done("evaluate", "digits")
    shared = read_weights(Path("models/pretrain/vision"))["encoder.local.relative_bias"]
    own = read_weights(Path("models/finetune/digits/pretrained/seed-0"))["encoder.local.relative_bias"]
    assert own.shape == (2, *shared.shape)
    assert float(shared.abs().max()) > 1e-4
    assert all(float((table - shared).abs().max()) < 1e-12 for table in own)


def test_a_table_of_another_size_is_still_refused(images):
    images.done("pretrain", "vision")
    images.set(modalities__vision__table__size=10, modalities__vision__table__margin=0)
    images.done("prepare", "vision")
    assert images.refused("finetune", "digits", "pretrained") == (
        "error: models/pretrain/vision reads other tables; set modalities.vision.table as in its config.json."
    )


def test_changes_to_the_augmentation_are_checked_before_training(images):
    images.set(tasks__digits__train__augment={"operation": None})
    assert images.refused("finetune", "digits", "scratch") == (
        "error: vision: train.augment.operation is not a known key. Did you mean 'operations'?"
    )
    images.set(tasks__digits__train__augment=True)
    assert "tasks.digits.train.augment must be" in images.refused("finetune", "digits", "scratch")
