"""A table can be looked at before it is trained on, by us and by others who read Arrow."""

import re
from collections import Counter
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest

from d2v_core import modalities
from d2v_core.data.table import Table


def table(name: str) -> Table:
    return Table(Path("data/tables", name), "train", modalities.get(name).columns)


def test_splits_lengths_and_words_are_shown(project):
    said = project.prepare("speech").done("describe", "speech")
    assert "train: 8 rows, 5.4 seconds" in said
    assert said.count(f"seconds {2:7} {40 * '#'}\n") == 3 * 4, "four lengths, each twice in a split"
    assert "dropped: 0\n" in said
    assert f"  {table('speech')[0]['id']}: {table('speech')[0]['text']}\n" in said


def test_labels_are_counted_and_drops_have_their_reason(project):
    root = project.write("vision")
    (root / "train/red/broken.png").write_bytes(b"no image")
    project.set(modalities__vision__corpus__max_dropped=0.5)
    project.done("vocabulary", "vision")
    project.done("prepare", "vision")
    said = project.done("describe", "vision")
    train = said.partition("valid: ")[0]
    counts = Counter(table("vision").classes[label] for label in table("vision").column("label"))
    assert dict(re.findall(r"  label (\w+): (\d+)\n", train)) == {name: str(count) for name, count in counts.items()}
    assert "dropped: 1\n" in said
    assert "broken.png" in said


def test_text_is_shown_as_text(project):
    said = project.prepare("text").done("describe", "text")
    assert "tokens" in said
    document = Path("data/raw/text/train/0.txt").read_text().split()
    assert f"  train/0: {' '.join(document[:5])} " in said


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
    ours = table("vision")
    if library == "polars":
        found = pl.scan_ipc(path).collect()["image"].to_list()
    elif library == "duckdb":
        duckdb = pytest.importorskip("duckdb")
        images = pa.ipc.open_file(path).read_all()  # noqa: F841 - duckdb finds it by its name
        found = [row[0] for row in duckdb.sql("select image from images").fetchall()]
    else:
        datasets = pytest.importorskip("datasets")
        found = datasets.load_dataset("arrow", data_files=path, cache_dir="cache")["train"]["image"]
    assert [list(one) for one in found] == [ours[row]["image"].tolist() for row in range(len(ours))]
