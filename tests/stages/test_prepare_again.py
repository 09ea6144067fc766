"""Preparing again: the finished is kept, the changed is made, a killed run loses nothing, a crash costs one file."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from d2v_core import modalities
from d2v_core.data.table import SPLITS, Table
from d2v_core.errors import Dropped, UserError
from stages import prepare, vocabulary
from stages.preparation import careful, executors, identity, shards, store
from stages.preparation.cuts import cut
from tests.tiny import ROOT, contents, environment, write_audio, write_image

TABLES, SHARDS = Path("data/tables"), Path("state/shards")
NAMES = st.lists(st.text("abc/-0123", min_size=1, max_size=6), unique=True, max_size=60).map(sorted)
CRASHES = """
import ctypes, faulthandler, os, time, soundfile
opened = soundfile.SoundFile.__init__

def crash(self, file, mode="r", *arguments, **named):
    if mode != "r":
        return opened(self, file, mode, *arguments, **named)
    if isinstance(file, (str, os.PathLike)):
        content = open(file, "rb").read(9)
    else:
        content = file.read(9)
        file.seek(0)
    time.sleep(float(os.environ.get("SLOW", 0)))
    if content in (b"ABORT NOW", b"SEGFAULT!"):
        faulthandler.disable()  # what pytest would print of it
    {b"ABORT NOW": os.abort, b"SEGFAULT!": lambda: ctypes.string_at(0), b"EXIT QUIT": lambda: os._exit(3)}.get(
        content, lambda: None
    )()
    opened(self, file, mode, *arguments, **named)

soundfile.SoundFile.__init__ = crash
"""


@pytest.fixture
def codec(tmp_path_factory, monkeypatch):
    """A codec that crashes on some files, in this process and in every one that it starts."""
    import soundfile

    folder = tmp_path_factory.mktemp("codec")
    (folder / "sitecustomize.py").write_text(CRASHES)
    monkeypatch.setenv("PYTHONPATH", f"{folder}{os.pathsep}{ROOT}")
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr(soundfile.SoundFile, "__init__", soundfile.SoundFile.__init__)
    exec(CRASHES, {})


def several(monkeypatch, workers: int = 2) -> None:
    """Have workers begin at once."""
    monkeypatch.setattr(executors, "SECONDS_ALONE", -1)
    monkeypatch.setattr(os, "cpu_count", lambda: workers)


def reused(said: str) -> int:
    """Return how many shards a run found finished."""
    return sum(int(line.split()[1]) for line in said.splitlines() if line.endswith("were there already"))


@given(names=NAMES, size=st.integers(1, 9))
def test_shards_are_the_ids_in_order_and_none_is_small(names, size):
    parts = [names[part] for part in cut(names, size)]
    assert [name for part in parts for name in part] == names
    assert all(len(part) > (size - 1) // 2 for part in parts[1:])
    assert all(parts)


@given(names=NAMES, more=st.text("abc/-0123", min_size=1, max_size=6), size=st.integers(1, 9))
def test_one_more_id_changes_cuts_within_a_shards_size_of_it_alone(names, more, size):
    names = [name for name in names if name != more]
    grown = sorted([*names, more])
    place = grown.index(more)
    before = {names[part.start] for part in cut(names, size)}
    after = {grown[part.start] for part in cut(grown, size)}
    assert before ^ after <= set(grown[max(0, place - size) : place + size + 1])


@pytest.mark.parametrize("size", [2, 64, 256])
def test_shards_have_the_size_that_was_asked_for_on_average(size):
    names = sorted(f"speaker-{number * 7919 % 100003}" for number in range(50_000))
    lengths = [part.stop - part.start for part in cut(names, size)]
    assert sum(lengths) / len(lengths) == pytest.approx(size, rel=0.05)
    assert max(lengths) < 5 * size


def test_nothing_is_made_twice_and_nothing_differs(project):
    project.set(modalities__speech__corpus__rows_per_shard=2)
    project.prepare("speech")
    before = contents(project.folder / "data/tables") | contents(project.folder / "metrics")
    marks = {path: path.stat().st_mtime_ns for path in (SHARDS / "speech").iterdir()}
    shutil.rmtree(TABLES)
    said = project.done("prepare", "speech")
    assert reused(said) == len(marks) / 2 > 5
    assert contents(project.folder / "data/tables") | contents(project.folder / "metrics") == before
    assert {path: path.stat().st_mtime_ns for path in (SHARDS / "speech").iterdir()} == marks


def changed(project, root: Path, what: str) -> int:
    """Change a corpus of images and return how many shards that may touch at most."""
    if what == "one file more":
        write_image(root / "train/green/3x.png", "green", seed=77)
        return 3
    if what == "one file less":
        (root / "train/green/3.png").unlink()
        return 3
    if what == "other content":
        write_image(root / "train/green/3.png", "blue", seed=78)
        return 1
    if what == "a new time of change":
        os.utime(root / "train/green/3.png", (1, 1))
        return 0
    if what == "a class more at the end":
        write_image(root / "train/violet/0.png", "red", seed=5)
        return 3
    project.set(modalities__vision__table__size=6)
    return 99


@pytest.mark.parametrize(
    "what",
    ["one file more", "one file less", "other content", "a new time of change", "a class more at the end", "a size"],
)
def test_only_what_a_change_touches_is_made_again_and_is_what_a_new_run_makes(project, what):
    project.set(modalities__vision__corpus__rows_per_shard=3)
    project.set(modalities__vision__corpus__holdout={"valid": 0.0, "test": 0.2})
    root = project.write("vision")
    vocabulary.main("vision")
    prepare.main("vision")
    touched = changed(project, root, what)
    said = project.done("prepare", "vision")
    once = contents(project.folder / "data/tables/vision")
    count = sum(name.endswith(".arrow") for name in once)
    assert count > 8
    assert count - reused(said) <= touched
    assert (count == reused(said)) == (touched == 0)
    assert len(list((SHARDS / "vision").iterdir())) == 2 * count
    shutil.rmtree("state")
    shutil.rmtree(TABLES)
    assert reused(project.done("prepare", "vision")) == 0
    assert contents(project.folder / "data/tables/vision") == once


@pytest.mark.parametrize("harm", ["cut the shard off", "change the shard", "cut the mark off", "remove the shard"])
def test_a_damaged_shard_is_made_again(project, harm):
    project.prepare("vision")
    before = contents(project.folder / "data/tables")
    kept = sorted((SHARDS / "vision").glob("train-*.arrow"))[0]
    content = kept.read_bytes()
    kept.unlink()  # the table has another name for the same bytes
    if harm != "remove the shard":
        kept.write_bytes(content[:-1] if harm == "cut the shard off" else content[:-1] + b"?")
    if harm == "cut the mark off":
        kept.write_bytes(content)
        kept.with_suffix(".json").write_text('{"file": ')
    shutil.rmtree(TABLES)
    assert reused(project.done("prepare", "vision")) == 2
    assert contents(project.folder / "data/tables") == before


def test_other_code_makes_everything_again(project, monkeypatch):
    project.prepare("vision")
    before = contents(project.folder / "data/tables")
    monkeypatch.setattr(identity, "code", lambda modality: "a later version")
    assert reused(project.done("prepare", "vision")) == 0
    assert contents(project.folder / "data/tables") == before


AGAIN_AND_AGAIN = """
import os, sys
from stages import prepare

answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
for _ in sys.stdin:
    process = os.fork()
    if process == 0:
        prepare.main("speech")
        os._exit(0)
    print(process, file=answers, flush=True)
    print(os.waitpid(process, 0)[1], file=answers, flush=True)
"""


def test_a_run_killed_at_any_moment_goes_on_where_it_was(project, codec):
    project.set(modalities__speech__corpus__rows_per_shard=1)
    project.prepare("speech")
    before = contents(project.folder / "data/tables")
    shutil.rmtree("state")
    shutil.rmtree(TABLES)
    done, variables = 0, environment(PYTHONPATH=os.environ["PYTHONPATH"], SLOW="0.02")
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", AGAIN_AND_AGAIN], env=variables, **pipes) as runs:
        for wanted in (0, 1, 5, 11, 17):
            runs.stdin.write("\n")
            runs.stdin.flush()
            process = int(runs.stdout.readline())
            while len(list(SHARDS.glob("speech/*.json"))) < wanted:
                time.sleep(0.001)
            time.sleep(random.random() / 20)
            os.kill(process, signal.SIGKILL)
            assert runs.stdout.readline() == f"{signal.SIGKILL}\n"
            assert not TABLES.exists()
            done = len(list(SHARDS.glob("speech/*.json")))
            assert wanted <= done < 24
        runs.stdin.close()
    time.sleep(0.2)  # what the killed process had started ends with it
    assert reused(project.done("prepare", "speech")) >= done
    assert contents(project.folder / "data/tables") == before
    assert not project.unfinished


CRASHING = {
    1: {"11-7-0001": (b"ABORT NOW", "ended by SIGABRT"), "31-7-0000": (b"EXIT QUIT", "ended with exit code 3")}
    | {"21-7-0001": (b"SEGFAULT!", "ended by SIGSEGV")},
    2: {"11-7-0002": (b"SEGFAULT!", "ended by SIGSEGV")},
}


@pytest.mark.parametrize("workers", CRASHING)
def test_a_codec_that_crashes_costs_its_file_alone(project, codec, monkeypatch, workers):
    project.set(modalities__speech__corpus__max_dropped=0.5)
    root = project.write("speech")
    for name, (content, _) in CRASHING[workers].items():
        next(root.rglob(f"{name}.flac")).write_bytes(content)
    next(root.rglob("31-7-0003.flac")).write_bytes(b"garbage")
    vocabulary.main("speech")
    if workers > 1:
        several(monkeypatch)
    project.done("prepare", "speech")
    rows = pl.read_parquet(TABLES / "speech/dropped.parquet").to_dicts()
    found = {row["id"]: (row["reason"], row["detail"]) for row in rows}
    assert found.pop("31-7-0003")[0] == "unreadable"
    assert found == {name: ("crashed", detail) for name, (_, detail) in CRASHING[workers].items()}
    tables = [Table(TABLES / "speech", split, modalities.get("speech").columns) for split in SPLITS]
    kept = [name for table in tables for name in table.column("id")]
    assert sorted(kept) == sorted({path.stem for path in root.rglob("*.flac")} - found.keys() - {"31-7-0003"})
    assert len(list(SHARDS.glob("speech/*.arrow"))) == 3
    assert len(list(SHARDS.glob("speech/*.json"))) == 3 - len(found)  # what crashed is tried again next time


def test_careful_decoding_gives_the_same(project):
    root = project.write("vision")
    (root / "train/red/0.jpg").write_bytes(b"not an image")
    table = prepare.read_blocks("vision")[2]
    job = shards.begin("vision", table, Path("data/vocabulary/vision"), "state/shards/vision")
    records = [
        {"id": path.stem, "path": str(path), "split": "train", "label": None, "text": None}
        for path in sorted(root.rglob("train/red/*"))
    ]
    task = shards.Task(job, "train", records, {})
    plain, careful_ones = list(shards.decode(task)), list(careful.decode(task))
    assert len(plain) == len(careful_ones) == 6
    for one, other in zip(plain, careful_ones, strict=True):
        if isinstance(one, Dropped):
            assert (one.reason, one.detail) == (other.reason, other.detail)
        else:
            assert [row["image"].tobytes() for row in one] == [row["image"].tobytes() for row in other]


def test_a_worker_with_other_code_refuses(project, monkeypatch):
    project.write("vision")
    table = prepare.read_blocks("vision")[2]
    job = shards.begin("vision", table, Path("data/vocabulary/vision"), "state/shards/vision")
    monkeypatch.setattr(identity, "code", lambda modality: "another version")
    with pytest.raises(UserError, match=r"a worker in .* has other code, libraries or data/vocabulary/vision than"):
        shards.make_shard(shards.Task(job, "train", [], {}))


def test_too_many_bad_files_end_the_run_before_all_are_read(project):
    root = project.write("vision")
    project.set(modalities__vision__corpus__rows_per_shard=1)
    for path in (root / "train").rglob("*.*"):
        path.write_text("no image")
    project.done("vocabulary", "vision")
    error = project.refused("prepare", "vision")
    assert "of the items were dropped: {'unreadable': " in error
    assert len(list(SHARDS.glob("vision/*.json"))) < 10


def test_a_mark_without_a_shard_is_no_shard(tmp_path):
    place = store.Store(str(tmp_path / "shards"))
    assert place.find("train-0") is None
    place.mark("train-0", store.Done("train-0.arrow", {"rows": 0, "blake3": ""}, 0, 0.0, [], 5))
    assert place.find("train-0") is None
    write_audio(tmp_path / "shards/train-0.arrow.wav", 0.1)
    place.keep({"train-0.json"})
    assert {path.name for path in (tmp_path / "shards").iterdir()} == {"train-0.json", "train-0.arrow.wav"}
