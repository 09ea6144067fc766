"""Awkward corpora on their way to tables: whatever the folder is like, every item is accounted for."""

import os
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.nightly import NIGHTLY
from tests.stages.test_layouts_foreign import pack
from tests.stages.test_prepare import reasons
from tests.tiny import SENTENCE, Project, contents, write_audio

NO_HOLDOUT = {"holdout": {"valid": 0.0, "test": 0.0}, "max_dropped": 1.0}


def frame(name: str, split: str = "train") -> pl.DataFrame:
    return pl.concat([pl.read_ipc(path) for path in sorted(Path("data/tables", name).glob(f"{split}-*.arrow"))]).sort(
        "id"
    )


def configure(project: Project, name: str, **changes: object) -> None:
    corpus = project.params["modalities"][name]["corpus"] | NO_HOLDOUT | changes
    project.set(**{f"modalities__{name}__corpus": corpus})


def prepare(project: Project, name: str) -> None:
    project.done("vocabulary", name)
    project.done("prepare", name)


def shards(name: str) -> dict[str, bytes]:
    return {path: data for path, data in contents(Path("data/tables", name)).items() if path.endswith(".arrow")}


@pytest.mark.parametrize("name", ["speech", "vision", "text"])
@pytest.mark.parametrize("suffix", [".tar", ".tar.gz"])
def test_a_packed_corpus_makes_the_same_table(project, name, suffix):
    root = project.write(name)
    configure(project, name)
    prepare(project, name)
    before = shards(name)
    pack(str(root), f"packed{suffix}")
    configure(project, name, raw=f"packed{suffix}")
    prepare(project, name)
    assert shards(name) == before


def test_parquet_makes_the_table_of_its_files(project):
    root = project.write("vision")
    configure(project, "vision")
    prepare(project, "vision")
    before = frame("vision")
    rows = [
        {"image": {"bytes": path.read_bytes(), "path": path.name}, "label": path.parent.name, "id": name}
        for path in sorted((root / "train").rglob("*.*"))
        for name in [str(path.relative_to(root).with_suffix(""))]
    ]
    Path("hub").mkdir()
    pq.write_table(pa.Table.from_pylist(rows[:10]), "hub/train-00000-of-00002.parquet", row_group_size=3)
    pq.write_table(pa.Table.from_pylist(rows[10:]), "hub/train-00001-of-00002.parquet", row_group_size=3)
    configure(project, "vision", raw="hub", layout="parquet")
    prepare(project, "vision")
    assert frame("vision").equals(before)


def test_every_name_and_every_link_is_read_or_counted(project):
    root = project.folder / "data/raw/speech"
    for name in ("with space", "line\nbreak", "日本語", "percent%20", "hash#1", "a!b"):
        write_audio(root / "train" / f"{name}.wav", 0.5)
    (root / "train/loop").symlink_to("..")
    (root / "train/gone.wav").symlink_to("nowhere.wav")
    with open(os.fsencode(root) + b"/train/caf\xe9.wav", "wb") as file:
        file.write(b"x")
    configure(project, "speech")
    prepare(project, "speech")
    assert set(frame("speech")["id"]) == {"with space", "line\nbreak", "日本語", "percent%20", "hash#1", "a!b"}
    assert reasons("speech") == {"gone": "unreadable", "caf\\xe9": "unreadable"}


@pytest.mark.skipif(os.geteuid() == 0, reason="permissions mean nothing to the superuser")
def test_a_file_that_may_not_be_read_is_dropped(project):
    root = project.write("vision")
    (root / "train/red/1.png").chmod(0)
    configure(project, "vision")
    prepare(project, "vision")
    assert reasons("vision") == {"train/red/1": "unreadable"}


def test_transcripts_can_be_missing_empty_or_of_foreign_letters(project):
    root = project.write("speech")
    configure(project, "speech")
    lines = (root / "train-tiny/11/7/11-7.trans.txt").read_text().splitlines()
    (root / "train-tiny/11/7/11-7.trans.txt").write_text("\n".join([lines[0], "11-7-0001", lines[2]]) + "\n")
    (root / "test-tiny/31/7/31-7.trans.txt").write_text("31-7-0000 ÑANDÚ 日本\n")
    prepare(project, "speech")
    train, test = frame("speech"), frame("speech", "test")
    assert train.filter(pl.col("text").is_null())["id"].to_list() == ["11-7-0001", "11-7-0003"]
    assert test["text"][0] == "ÑANDÚ 日本"
    project.done("finetune", "transcribe", "scratch")


def test_labels_can_be_empty_or_unknown_and_ids_come_twice(project):
    root = project.folder / "data/raw/topics"
    root.mkdir(parents=True)
    rows = [("hello there", "a", "1"), ("again", "", "2"), ("more", "b", "3"), ("twice", "a", "3")]
    (root / "manifest.csv").write_text(
        "text,label,id,split\n" + "".join(f"{text},{label},{item},train\n" for text, label, item in rows)
    )
    with (root / "manifest.csv").open("a") as file:
        file.write("other,c,4,test\n\0bad,a,5,train\n")
    project.prepare("text")
    project.set(
        labelled__topics__corpus=project.params["labelled"]["topics"]["corpus"] | NO_HOLDOUT | {"layout": "manifest"}
    )
    project.done("prepare", "topics")
    assert frame("topics")["label"].to_list() == [0, None, 1]
    assert reasons("topics") == {"3": "duplicate id", "4": "unknown label", "5": "unreadable"}


def test_text_that_is_not_utf_8_is_dropped_or_replaced(project):
    root = project.write("text")
    (root / "train/latin.txt").write_bytes(b"the caf\xe9 sat\0on a mat")
    configure(project, "text")
    prepare(project, "text")
    assert reasons("text") == {"train/latin": "unreadable"}
    assert "replaced" not in project.json("metrics/text/counts.json")
    configure(project, "text", encoding_errors="replace")
    project.done("vocabulary", "text")
    assert "text: 2 characters stand for what was not text" in project.done("prepare", "text")
    assert project.json("metrics/text/counts.json")["replaced"] == 2
    assert "replaced" in project.done("describe", "text")
    project.done("prepare", "text")
    assert project.json("metrics/text/counts.json")["replaced"] == 2
    assert reasons("text") == {}
    assert "train/latin" in set(frame("text")["id"])


def test_replaced_characters_of_sentences_are_counted(project):
    root = project.folder / "data/raw/topics"
    root.mkdir(parents=True)
    (root / "train.tsv").write_bytes(b"sentence\tlabel\nthe caf\xe9 cat\todd\na\xff\xfe mat\teven\nsome dogs\todd\n")
    project.prepare("text")
    blocks = project.params["labelled"]["topics"]["corpus"] | NO_HOLDOUT | {"encoding_errors": "replace"}
    project.set(labelled__topics__corpus=blocks)
    project.done("prepare", "topics")
    counts = project.json("metrics/topics/counts.json")
    assert (counts["kept"], counts["replaced"]) == (3, 3)


def test_one_line_of_megabytes_is_many_blocks(project):
    root = project.write("text")
    size = 50_000_000 if NIGHTLY else 2_000_000
    chosen = np.random.default_rng(0).choice(SENTENCE.split(), size // 5)
    (root / "train/long.txt").write_text(" ".join(chosen))
    configure(project, "text")
    prepare(project, "text")
    tokens = frame("text").filter(pl.col("id") == "train/long")["tokens"]
    assert tokens.list.len().sum() > size / 10
    assert (tokens.list.len()[:-1] == 16).all()


def test_auto_and_the_named_layout_make_the_same_table(project):
    for name in ("speech", "vision", "text"):
        project.write(name)
        configure(project, name)
        prepare(project, name)
        before = shards(name)
        configure(project, name, layout="auto")
        prepare(project, name)
        assert shards(name) == before


def test_arrays_that_are_none_are_dropped(project):
    root = project.write("vision")
    np.save(root / "train/red/x.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    (root / "train/red/y.npy").write_bytes(b"\x93NUMPY\1\0")
    configure(project, "vision", layout="arrays")
    project.done("vocabulary", "vision")
    assert "left no rows in its 'train' split; dropped: {'unreadable': 2}" in project.refused("prepare", "vision")
