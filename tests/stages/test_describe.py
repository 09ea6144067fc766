"""A table can be looked at before it is trained on, by us and by others who read Arrow."""

import re

import numpy as np
import polars as pl
import pyarrow as pa
import pytest


def test_splits_lengths_and_words_are_shown(project):
    said = project.prepare("speech").done("describe", "speech")
    assert "train: 8 rows, 5.4 seconds" in said
    assert said.count("#") >= 3 * 4
    assert "dropped: 0" in said
    first = pl.read_ipc("data/tables/speech/train-00000.arrow")["text"][0]
    assert first in said


def test_labels_are_counted_and_drops_have_their_reason(project):
    root = project.write("vision")
    (root / "train/red/broken.png").write_bytes(b"no image")
    project.set(modalities__vision__corpus__max_dropped=0.5)
    project.done("vocabulary", "vision")
    project.done("prepare", "vision")
    said = project.done("describe", "vision")
    assert "label red: 4" in said or "label red: 5" in said or "label red: 6" in said
    assert "dropped: 1" in said
    assert "broken.png" in said


def test_text_is_shown_as_text(project):
    said = project.prepare("text").done("describe", "text")
    assert "tokens" in said
    assert any(word in said for word in ("cat", "mat", "dogs", "hill"))


def test_what_is_no_table_is_refused(project):
    assert "is not a prepared table" in project.refused("describe", "vision")


def test_the_page_has_sounds_spectrograms_and_what_was_dropped(project):
    root = project.write("speech")
    (next(root.rglob("train-tiny/*/7")) / "11-7-0009.flac").write_bytes(b"no sound")
    project.set(modalities__speech__corpus__max_dropped=0.5)
    project.done("vocabulary", "speech")
    project.done("prepare", "speech")
    assert "reports/describe-speech.html" in project.done("describe", "speech")
    page = (project.folder / "reports/describe-speech.html").read_text()
    assert page.count("<audio") == page.count('alt="spectrogram of') == 15
    assert "unreadable" in page
    assert not re.search(r"(href|src)=\"(?!#|data:)", page.replace('xlink:href="#', ""))


def test_the_page_of_pictures_has_thumbnails_and_labels(project):
    project.prepare("vision").done("describe", "vision")
    page = (project.folder / "reports/describe-vision.html").read_text()
    assert page.count('src="data:image/png') >= 24
    for colour in ("red", "green", "blue"):
        assert f'<th dir="auto">{colour}</th>' in page


@pytest.mark.parametrize("library", ["polars", "duckdb", "datasets"])
def test_tables_open_unchanged_in_other_libraries(project, library):
    project.prepare("vision")
    path = "data/tables/vision/train-00000.arrow"
    ours = pl.read_ipc(path)["image"].to_list()
    if library == "polars":
        found = pl.scan_ipc(path).collect()["image"].to_list()
    elif library == "duckdb":
        duckdb = pytest.importorskip("duckdb")
        images = pa.ipc.open_file(path).read_all()  # noqa: F841 - duckdb finds it by its name
        found = [row[0] for row in duckdb.sql("select image from images").fetchall()]
    else:
        datasets = pytest.importorskip("datasets")
        found = datasets.load_dataset("arrow", data_files=path, cache_dir="cache")["train"]["image"]
    assert [np.asarray(one).tolist() for one in found] == ours
