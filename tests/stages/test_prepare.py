"""Raw files to tables: every item is accounted for, nothing bad ends the run, and the bytes are always the same."""

import os
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import soundfile
import torch
from blake3 import blake3
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torchvision.io import write_png

from d2v_core import modalities
from d2v_core.data.table import Table
from stages import prepare, readers, vocabulary
from stages.preparation import executors, shards
from tests.tiny import contents, words, write_audio, write_image

TABLES = Path("data/tables")


def table(name: str, split: str = "train", modality: str | None = None) -> Table:
    return Table(TABLES / name, split, modalities.get(modality or name).columns)


def rows(name: str, modality: str | None = None) -> list[dict]:
    found = table(name, modality=modality)
    return [found[row] for row in range(len(found))]


def dropped(name: str) -> dict[str, tuple[str, str]]:
    rows = pl.read_parquet(TABLES / name / "dropped.parquet").to_dicts()
    return {row["id"]: (row["reason"], row["detail"]) for row in rows}


def reasons(name: str) -> dict[str, str]:
    return {item: reason for item, (reason, _) in dropped(name).items()}


def write_bad(path: Path, kind: str) -> None:
    """Write a file with the fault ``kind``; what it is dropped for is ``FAULTS[kind]``."""
    samples = np.sin(np.arange(8000) / 10).astype(np.float32)
    if kind == "nothing":
        path.write_bytes(b"")
    elif kind == "garbage":
        path.write_bytes(bytes(range(256)) * 8)
    elif kind in ("half a flac", "half a wav", "half an mp3"):
        write_audio(path, 1.0)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    else:
        changed = {
            "no samples": samples[:0],
            "NaN": np.where(np.arange(8000) == 4000, np.nan, samples),
            "silence": np.zeros(8000),
            "too short": samples[:800],
        }
        soundfile.write(path, changed[kind], 16000, subtype="FLOAT")


FAULTS = {
    "nothing": (".flac", "unreadable"),
    "garbage": (".flac", "unreadable"),
    "half a flac": (".flac", "unreadable"),
    "half a wav": (".wav", "cut off"),
    "half an mp3": (".mp3", "cut off"),
    "no samples": (".wav", "empty"),
    "NaN": (".wav", "not finite"),
    "silence": (".wav", "silent"),
    "too short": (".wav", "duration"),
}


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kinds=st.lists(st.sampled_from([*FAULTS, "good", "twin"]), max_size=8),
    parts=st.randoms(use_true_random=False),
    rows_per_shard=st.integers(1, 4),
)
def test_every_item_is_kept_or_dropped_for_the_right_reason(project, kinds, parts, rows_per_shard):
    root = project.folder / "data/raw/speech"
    shutil.rmtree(root, ignore_errors=True)
    expected = Counter()
    write_audio(root / "train/1/1-1-good.flac", 0.5)
    for number, kind in enumerate(kinds):
        home = root / parts.choice(["train", "dev", "test"]) / "1"
        home.mkdir(parents=True, exist_ok=True)
        name = f"1-1-{number}"
        if kind == "good":
            write_audio(home / f"{name}.wav", 0.5)
        elif kind == "twin":
            write_audio(home / f"{name}.wav", 0.5)
            shutil.copy(home / f"{name}.wav", home / f"{name}.flac")
            expected["duplicate id"] += 1
        else:
            suffix, reason = FAULTS[kind]
            write_bad(home / f"{name}{suffix}", kind)
            expected[reason] += 1
    corpus = {"max_dropped": 1.0, "rows_per_shard": rows_per_shard, "holdout": {"valid": 0.0, "test": 0.0}}
    project.set(modalities__speech__corpus=project.params["modalities"]["speech"]["corpus"] | corpus)
    vocabulary.main("speech")
    prepare.main("speech")
    counts = project.json("metrics/speech/counts.json")
    assert counts["seen"] == 1 + len(kinds) + kinds.count("twin")
    assert counts["dropped"] == dict(expected)
    assert counts["seen"] == counts["kept"] + sum(counts["dropped"].values())
    assert sum(split["seen"] for split in counts["splits"].values()) == counts["seen"]
    assert sum(split["kept"] for split in counts["splits"].values()) == counts["kept"]
    assert Counter(reasons("speech").values()) <= expected
    assert len(pl.read_parquet(TABLES / "speech/dropped.parquet")) == counts["seen"] - counts["kept"]
    lengths = [len(table("speech", split)) for split, at in counts["splits"].items() if at["rows"]]
    assert sum(lengths) == counts["kept"]


def test_stereo_at_44100_hz_becomes_mono_at_16000_with_the_same_sound(project):
    root = project.write("speech")
    time = np.arange(44100) / 44100
    tone = 0.5 * np.sin(2 * np.pi * 1000 * time)
    soundfile.write(root / "train-tiny/11/7/stereo.flac", np.stack([tone, 0 * tone], axis=1), 44100)
    project.done("vocabulary", "speech")
    project.done("prepare", "speech")
    (row,) = [row for row in rows("speech") if row["id"] == "stereo"]
    audio = row["audio"] / 32767
    assert len(audio) == 16000
    assert np.abs(np.fft.rfft(audio)).argmax() == 1000
    assert np.abs(audio[2000:-2000]).max() == pytest.approx(0.25, abs=0.01)
    assert row["text"] is None


def test_a_table_holds_what_the_corpus_holds_and_opens_in_polars(project):
    project.prepare("speech")
    for split, speaker in (("train", "11"), ("valid", "21"), ("test", "31")):
        frame = pl.read_ipc(TABLES / f"speech/{split}-00000.arrow")
        assert frame["id"][0] == f"{speaker}-7-0000"
        path = next(Path("data/raw/speech").rglob(f"{speaker}-7-0000.flac"))
        assert frame["audio"][0].to_list() == soundfile.read(path, dtype="int16")[0].tolist()
        assert frame["text"][0] == words(f"{speaker}-7-0000", count=3).upper()
    assert (
        table("speech")[0]["audio"].tolist() == pl.read_ipc(TABLES / "speech/train-00000.arrow")["audio"][0].to_list()
    )


def test_counts_say_how_much_there_is_in_the_unit_of_the_modality(project):
    project.prepare("speech")
    counts = project.json("metrics/speech/counts.json")
    seconds = sum(soundfile.info(path).duration for path in Path("data/raw/speech").rglob("train*/**/*.flac"))
    assert counts["unit"] == "seconds"
    assert counts["splits"]["train"] == {"seen": 8, "kept": 8, "rows": 8, "seconds": pytest.approx(seconds, abs=1e-3)}


@pytest.mark.parametrize("channels", [1, 3])
def test_grey_and_colour_become_what_the_table_asks_for(project, channels):
    project.set(
        modalities__vision__table__channels=channels,
        modalities__vision__corpus__holdout={"valid": 0.0, "test": 0.0},
        modalities__vision__model__augment__mean=[0.5] * channels,
        modalities__vision__model__augment__std=[0.5] * channels,
    )
    root = project.write("vision")
    shades = torch.arange(64, dtype=torch.uint8).reshape(1, 8, 8)
    write_png(shades, str(root / "train/red/shades.png"))
    write_png(shades.expand(3, 8, 8), str(root / "train/red/rgb.png"))
    project.done("vocabulary", "vision")
    project.done("prepare", "vision")
    found = {row["id"]: row["image"] for row in rows("vision")}
    assert {len(image) for image in found.values()} == {64 * channels}
    for name in ("shades", "rgb"):
        assert np.array_equal(
            found[f"train/red/{name}"].reshape(channels, -1), shades.reshape(1, -1).expand(channels, -1)
        )
    red, green = (found[f"train/{colour}/1"].reshape(channels, -1).mean(axis=1) for colour in ("red", "green"))
    assert (red[0] > green[0] + 100) if channels == 3 else (green > red + 40)


def test_a_cut_off_image_a_foreign_file_and_an_unknown_class_are_dropped_and_named(project):
    root = project.write("vision")
    project.set(modalities__vision__corpus__max_dropped=0.2)
    picture = (root / "train/red/1.png").read_bytes()
    (root / "train/red/half.png").write_bytes(picture[: len(picture) // 2])
    (root / "train/blue/text.jpg").write_text("not an image")
    (root / "train/blue/none.gif").write_bytes(b"")
    write_image(root / "test/violet/1.png", "red")
    project.done("vocabulary", "vision")
    assert project.done("prepare", "vision").splitlines()[-1] == "vision: 40 items seen, 36 kept, 4 dropped"
    assert reasons("vision") == {
        "train/red/half": "unreadable",
        "train/blue/text": "unreadable",
        "train/blue/none": "unreadable",
        "test/violet/1": "unknown label",
    }
    assert dropped("vision")["test/violet/1"][1] == "'violet' is not among the training labels"
    row = pl.read_parquet(TABLES / "vision/dropped.parquet").filter(pl.col("id") == "train/red/half").to_dicts()[0]
    assert row["path"] == "data/raw/vision/train/red/half.png"
    assert row["split"] in ("train", "valid")
    assert "not a whole JPEG, PNG, GIF or WebP image" in row["detail"]
    assert table("vision").classes == ["blue", "green", "red"]


def test_labels_are_the_numbers_of_the_sorted_training_classes(project):
    project.prepare("vision", "text", "topics")
    found = table("vision", "test")
    names = [found.classes[label] for label in found.column("label")]
    assert names == [name.split("/")[1] for name in found.column("id")]
    sentences = table("topics", modality="text")
    assert sentences.classes == ["even", "odd"]
    assert sentences.column("label") == [0, 1] * 4
    assert set(table("text").column("label")) == {None}


def test_text_is_paragraphs_in_blocks_and_survives_a_round_trip(project):
    root = project.write("text")
    (root / "train/crlf.txt").write_bytes(b"The cat\r\nsat.\r\n\r\n\r\nA mat\r\n \t\r\non a hill\r\n")
    project.done("vocabulary", "text")
    project.done("prepare", "text")
    pieces = readers.pieces(Path("data/vocabulary/text"))
    blocks = [row["tokens"].tolist() for row in rows("text") if row["id"] == "train/crlf"]
    assert all(block[0] == 0 and len(block) <= 16 for block in blocks)
    assert all(len(block) == 16 for block in blocks[:-1])
    ids = [token for row in blocks for token in row[1:]]
    ends = [number for number, token in enumerate(ids) if token == 2]
    paragraphs = [
        pieces.decode(ids[start:end]) for start, end in zip([0, *[end + 1 for end in ends]], ends, strict=False)
    ]
    assert [" ".join(part.replace("⁇", "").split()) for part in paragraphs] == ["the cat sat.", "a mat", "on a hill"]


def test_text_that_is_not_utf_8_or_empty_is_dropped(project):
    root = project.write("text")
    project.set(modalities__text__corpus__max_dropped=0.5)
    (root / "train/latin.txt").write_bytes("Café\n".encode("latin-1"))
    (root / "train/empty.txt").write_text("")
    (root / "dev/blank.txt").write_text(" \n\n\t\n")
    project.done("vocabulary", "text")
    project.done("prepare", "text")
    assert reasons("text") == {"train/latin": "unreadable", "train/empty": "empty", "dev/blank": "empty"}


def test_sentences_are_cut_to_fit_a_row_and_empty_ones_dropped(project):
    root = project.write("topics")
    project.set(labelled__topics__corpus__max_dropped=0.5)
    with (root / "train.tsv").open("a") as lines:
        lines.write(f"{words('long', count=60)}\teven\n \todd\nno label\n")
    project.prepare("text")
    project.done("prepare", "topics")
    assert reasons("topics") == {"train-0000009": "empty"}
    found = {row["id"]: row for row in rows("topics", modality="text")}
    long = found["train-0000008"]["tokens"]
    assert (len(long), long[0], long[-1]) == (16, 0, 2)
    assert found["train-0000010"]["label"] is None


def test_too_many_dropped_files_fail_by_name_and_leave_the_old_table(project):
    project.prepare("vision")
    before = contents(project.folder / "data/tables")
    for number in range(6):
        (project.folder / f"data/raw/vision/train/red/bad{number}.png").write_text("no image")
    error = project.refused("prepare", "vision")
    assert error.startswith("error: data/raw/vision: 14% of the items were dropped: {'unreadable': 6}, more than")
    assert "for example data/raw/vision/train/red/bad" in error
    assert contents(project.folder / "data/tables") == before
    assert not project.unfinished


def test_a_train_split_without_one_good_file_fails(project):
    root = project.write("vision")
    for path in (root / "train").rglob("*.*"):
        path.write_text("no image")
    project.set(modalities__vision__corpus__max_dropped=1.0)
    project.done("vocabulary", "vision")
    assert "left no rows in its 'train' split; dropped: {'unreadable': 18}" in project.refused("prepare", "vision")
    assert not (project.folder / "data/tables/vision").exists()


def test_workers_and_the_order_of_the_folder_do_not_change_a_byte(project, monkeypatch):
    project.set(modalities__text__corpus__rows_per_shard=3)
    project.prepare("text")
    before = contents(project.folder / "data")
    assert len([name for name in before if name.startswith("tables/text/train-")]) == 2
    monkeypatch.setattr(executors, "SECONDS_ALONE", -1)
    shutil.rmtree("state")
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    shutil.rmtree(TABLES)
    scandir, listed = os.scandir, []
    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", lambda folder: listed.append(folder) or Backwards(reversed([*scandir(folder)])))
        vocabulary.main("text")
        prepare.main("text")
    assert "data/raw/text/train" in listed
    assert contents(project.folder / "data") == before


class Backwards(list):
    """The entries of a folder in another order, as a context."""

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass


def test_an_item_that_is_lost_ends_the_stage(project, monkeypatch):
    root = project.write("vision")
    vocabulary.main("vision")
    made = shards.write

    def losing(task, *others):
        done = made(task, *others)
        return replace(done, kept=done.kept - (task.split == "test"))

    monkeypatch.setattr(shards, "write", losing)
    sentence = f"{root.relative_to(project.folder)}: 1 items of 'test' are neither kept nor dropped"
    assert sentence in project.refused("prepare", "vision")
    assert not (TABLES / "vision").exists()


def test_the_index_holds_the_digests_of_the_shards(project):
    project.prepare("vision")
    index = project.json("data/tables/vision/index.json")["shards"]
    for name, entry in index.items():
        assert entry["blake3"] == blake3((TABLES / "vision" / name).read_bytes()).hexdigest()


def test_shards_of_any_size_hold_the_same_rows(project):
    project.prepare("vision")
    before = table("vision").column("id")
    for size in (1, 2, 5):
        project.set(modalities__vision__corpus__rows_per_shard=size)
        prepare.main("vision")
        after = table("vision")
        assert after.column("id") == before
        assert max(1, len(before) / size / 2) <= len(after.shards) <= 2 * len(before) / size
        for shard in sorted((TABLES / "vision").glob("train-*.arrow")):
            assert len(pl.read_ipc(shard)) >= (size - 1) // 2


def test_a_score_is_a_number_or_its_row_is_dropped(project):
    project.prepare("text")
    root = project.write("topics")
    project.set(labelled__topics__corpus__score="closeness", labelled__topics__corpus__max_dropped=0.5)
    lines = "sentence\tcloseness\nthe cat sat\t0.25\non a mat\tnan\na small dog\tmuch\none hill\t-3\n"
    for name in ("train.tsv", "dev.tsv", "test.tsv"):
        (root / name).write_text(lines)
    project.done("prepare", "topics")
    assert table("topics", modality="text").column("score") == [0.25, -3.0]
    assert Counter(reasons("topics").values()) == {"not finite": 6}
