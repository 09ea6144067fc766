"""Sentence pairs and regression go from GLUE's files to scores: through manifest, table, head and metrics."""

import polars as pl
import pytest
import torch

from d2v_core.errors import UserError
from d2v_core.model.supervised import HeadConfig
from stages import readers, tasks
from stages.paths import VOCABULARIES
from tests.tiny import words

HEADER = "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore\n"


def similar(project, count: int = 12) -> None:
    """Write a tiny STS-B: pairs of sentences with scores from 0 to 5, one of which is none."""
    root = project.folder / "data/raw/topics"
    root.mkdir(parents=True)
    for part in ("train", "dev"):
        rows = []
        for index in range(count):
            first, second = words(part, index, count=4), words(part, index, "other", count=30)
            score = "many" if (part, index) == ("train", 7) else f"{index % 6}.000"
            rows.append(f"{index}\tg\tf\ty\t1\ts\ts\t{first}\t{second}\t{score}\n")
        (root / f"{part}.tsv").write_text(HEADER + "".join(rows))


@pytest.fixture
def scored(project):
    similar(project)
    project.prepare("text")
    project.set(labelled__topics__corpus__layout="glue", labelled__topics__corpus__max_dropped=0.2)
    project.set(labelled__topics__corpus__holdout={"valid": 0.0, "test": 0.2})
    project.set(tasks__topics__train__head={"kind": "score", "freeze": 0, "smoothing": 0.0})
    project.set(tasks__topics__train__per_class=0)
    project.set(tasks__topics__probe={"seeds": [0], "updates": 3, "rate": 0.01})
    project.done("prepare", "topics")
    return project


def test_scores_and_pairs_are_in_the_table(scored):
    frame = pl.read_ipc("data/tables/topics/valid-00000.arrow").sort("id")
    assert frame["score"].to_list() == pytest.approx([index % 6 / 5 for index in range(12)])
    assert frame["label"].to_list() == [None] * 12
    dropped = pl.read_parquet("data/tables/topics/dropped.parquet").to_dicts()
    assert [(row["id"], row["reason"], row["detail"]) for row in dropped] == [
        ("train-0000007", "not finite", "score 'many' is not a number")
    ]
    for index, tokens in enumerate(frame["tokens"].to_list()):
        pair = [words("dev", index, count=4), words("dev", index, "other", count=30)]
        first, second = readers.shortened(readers.encode(pair, VOCABULARIES / "text"), 16 - 4)
        assert tokens == [0, *first, 2, 2, *second, 2]


def test_regression_trains_is_probed_and_scored(scored):
    scored.set(tasks__topics__train__choose={"every": 2, "metrics": ["pearson", "spearman"]})
    scored.done("pretrain", "text")
    for origin in ("pretrained", "scratch"):
        scored.done("finetune", "topics", origin)
    scored.done("evaluate", "topics")
    scored.done("probe", "topics")
    for name, origins in (("evaluate", ["pretrained", "scratch"]), ("probe", ["pretrained", "random"])):
        found = scored.json(f"metrics/topics/{name}.json")
        assert list(found) == origins
        for split in ("valid", "test"):
            assert list(found[origins[0]][split]) == ["pearson", "spearman"]
            assert all(-100 <= value["mean"] <= 100 for value in found[origins[0]][split].values())
    answers = pl.read_csv("plots/topics/answers.csv")
    assert answers["actual"].is_between(0, 1).all()
    scored.done("report")


def test_the_head_learns_numbers_by_squared_error(scored):
    task = tasks.read_task("topics")
    model, table = task.model(), task.table("train")
    batch = [table[row] for row in range(4)]
    inputs = task.setup.modality.batch(batch, None, task.setup.config) | {"labels": task.labels(batch)}
    model.eval()
    logits = model.logits(inputs)[0].detach()
    expected = sum((float(values[0]) - row["score"]) ** 2 for values, row in zip(logits, batch, strict=True))
    assert logits.shape == (4, 1)
    assert float(model(inputs).total.detach()) == pytest.approx(expected, rel=1e-5)
    assert model.config == HeadConfig("score", 0, 0.0)
    assert torch.is_floating_point(inputs["labels"])


def test_a_modality_without_scores_cannot_have_the_head(project):
    project.prepare("vision")
    project.set(tasks__digits__train__head={"kind": "score", "freeze": 0, "smoothing": 0.0})
    project.set(tasks__digits__train__per_class=0)
    with pytest.raises(UserError, match=r"tasks\.digits\.train\.head\.kind is 'score', but tables of vision have no"):
        tasks.read_task("digits")
