"""Any number of workers on any machine, input and output at URLs: the same bytes, and nothing lost with a worker."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import fsspec
import pytest

from d2v_core import modalities
from d2v_core.data.table import SPLITS, Table
from stages import prepare, vocabulary
from stages.preparation import executors
from tests.tiny import ROOT, contents

TABLES, SHARDS = Path("data/tables"), Path("state/shards")
SLOW = """
import ctypes, time, soundfile
opened = soundfile.SoundFile.__init__

def slowly(self, file, *arguments, **named):
    time.sleep(0.1)
    if isinstance(file, str) and open(file, "rb").read(9) == b"SEGFAULT!":
        ctypes.string_at(0)
    opened(self, file, *arguments, **named)

soundfile.SoundFile.__init__ = slowly
"""


@pytest.fixture
def cluster(tmp_path_factory, monkeypatch):
    """A Dask cluster of two processes with a codec that takes its time."""
    dask, distributed = pytest.importorskip("dask"), pytest.importorskip("distributed")
    folder = tmp_path_factory.mktemp("codec")
    (folder / "sitecustomize.py").write_text(SLOW)
    monkeypatch.setenv("PYTHONPATH", f"{folder}{os.pathsep}{ROOT}")
    monkeypatch.chdir(folder)  # workers begin elsewhere
    failures = dask.config.set({"distributed.scheduler.allowed-failures": 0})  # a lost worker is told at once
    local = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "dashboard_address": ":0"}
    with failures, distributed.LocalCluster(**local) as found:
        yield found


@pytest.fixture
def bucket(monkeypatch):
    """An empty bucket of an S3 server on this machine."""
    pytest.importorskip("moto")
    pytest.importorskip("s3fs")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(port)
        fsspec.filesystem("s3").mkdir("corpus")
        yield "s3://corpus"
    finally:
        server.kill()
        server.wait()


def wait_for(port: int, seconds: float = 60) -> None:
    """Wait until a server answers at ``port``."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.1)
    raise TimeoutError(f"nothing answers at {port}")


def kill_one(cluster, after: int) -> list[int]:
    """Kill a worker when ``after`` shards are done, from a thread; the list gets its process."""
    killed: list[int] = []

    def wait() -> None:
        while len(list(SHARDS.glob("speech/*.json"))) < after:
            time.sleep(0.005)
        process = next(iter(cluster.workers.values())).pid
        os.kill(process, signal.SIGKILL)
        killed.append(process)

    threading.Thread(target=wait, daemon=True).start()
    return killed


def test_a_cluster_makes_the_same_bytes_though_a_worker_is_killed(cluster, project):
    project.set(modalities__speech__corpus__rows_per_shard=1)
    project.prepare("speech")
    before = contents(project.folder / "data/tables") | contents(project.folder / "metrics")
    for path in (*SHARDS.glob("speech/*"), *TABLES.glob("speech/*")):
        path.unlink()
    project.set(executor=cluster.scheduler_address.replace("tcp://", "dask://"))
    killed = kill_one(cluster, after=3)
    project.done("prepare", "speech")
    assert len(killed) == 1
    assert contents(project.folder / "data/tables") | contents(project.folder / "metrics") == before


def test_a_codec_that_crashes_on_a_cluster_costs_its_file_alone(cluster, project):
    root = project.write("speech")
    next(root.rglob("11-7-0002.flac")).write_bytes(b"SEGFAULT!")
    project.done("vocabulary", "speech")
    project.set(executor=cluster.scheduler_address.replace("tcp://", "dask://"))
    said = project.done("prepare", "speech")
    assert said.splitlines()[-1] == "speech: 24 items seen, 23 kept, 1 dropped"
    assert project.json("metrics/speech/counts.json")["dropped"] == {"crashed": 1}


def test_a_table_goes_to_s3_and_comes_back_the_same(bucket, project):
    fsspec.config.conf.pop("s3", None)
    root = project.write("vision")
    files = fsspec.filesystem("s3")
    files.put(str(root), "corpus/raw", recursive=True)
    project.done("vocabulary", "vision")
    project.done("prepare", "vision")
    project.set(modalities__vision__corpus__raw=f"{bucket}/raw", tables=f"{bucket}/tables")
    vocabulary.main("vision")
    assert "were there already" not in project.done("prepare", "vision")
    files.get("corpus/tables/vision", str(project.folder / "back"), recursive=True)
    columns = modalities.get("vision").columns
    for split in SPLITS:
        here, back = (Table(place, split, columns) for place in (TABLES / "vision", project.folder / "back"))
        assert [entry["blake3"] for entry in entries(here, split)] == [
            entry["blake3"] for entry in entries(back, split)
        ]
        assert here.column("id") == back.column("id")
        assert here.classes == back.classes
    before = {path: info["LastModified"] for path, info in files.find("corpus/tables", detail=True).items()}
    project.set(modalities__vision__table__size=6)
    files.rm_file("corpus/raw/test/red/0.jpg")
    files.invalidate_cache()
    prepare.main("vision")
    after = files.find("corpus/tables", detail=True)
    assert not {path for path in before if path.endswith(".arrow")} & after.keys()
    assert len(after) == len(before)


def entries(table: Table, split: str) -> list[dict]:
    """Return the entries of a split in a table's index, in order."""
    return [entry for name, entry in table.index["shards"].items() if name.startswith(f"{split}-")]


@pytest.mark.parametrize(
    ("executor", "error"),
    [
        ("threads", "params.yaml: executor must be 'processes' or 'dask://HOST:PORT', not 'threads'."),
        ("dask://127.0.0.1:1", "no Dask scheduler answers at 127.0.0.1:1 ("),
    ],
)
def test_an_executor_that_is_not_there_is_one_sentence(project, monkeypatch, executor, error):
    monkeypatch.setattr(executors, "SECONDS_TO_CONNECT", 1)
    project.write("vision")
    project.done("vocabulary", "vision")
    project.set(executor=executor)
    assert error in project.refused("prepare", "vision")
