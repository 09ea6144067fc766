"""A disk that is really full, a small one of its own: before a stage has written its output, and after.

The first is the stage's sentence. In the second the training is done and only DVC's copy of it does not fit: the flow
waits for room instead of training again.
"""

import shutil
import subprocess

import pytest
from machines import ROOT

from tests.nightly import nightly

STAGE = """
from pathlib import Path

from d2v_core.data.files import publish
from stages.runner import run


def main() -> None:
    with Path("trained").open("a") as log:
        log.write("once more\\n")
    with publish(Path("speech.model")) as temporary:
        temporary.write_bytes(bytes(6 << 20))
    Path("speech.json").write_text('{"loss": 0.5}')
    Path("speech.csv").write_text("update,loss\\n1,2.5\\n")


if __name__ == "__main__":
    run(main)
"""
BEGIN = """
set -eu
mount -t tmpfs -o size=20m none "$DISK"
cp -a . "$DISK"; cd "$DISK"
head -c "$BALLAST" /dev/zero > ballast.txt
"""
TOO_SMALL = """
! python -m flows.reproduce pretrain@speech 2> log
cat log
ls -A; rm ballast.txt
dvc repro pretrain@speech; cat trained
"""
NO_COPY = """
python -m flows.reproduce pretrain@speech 2> log & flow=$!
until grep -q "free some" log; do sleep 0.2; kill -0 $flow; done
rm ballast.txt
wait $flow; cat log
dvc repro pretrain@speech; cat trained
"""
UNSHARE = ["unshare", "--map-root-user", "--mount"]
pytestmark = nightly("takes a minute")


@pytest.fixture
def on_a_full_disk(workspace, server, environment, tmp_path):
    """Return a function that runs a script in a copy of the tiny project on a disk of 20 MB; it gives the output."""
    mount = [*UNSHARE, "mount", "-t", "tmpfs", "none", str(tmp_path)]
    if not shutil.which("unshare") or subprocess.run(mount, check=False).returncode:
        pytest.skip("a disk of its own needs the right to mount one")
    pipeline = (workspace / "dvc.yaml").read_text()
    command = "sh settings/${item}.sh && cp ${item}.txt ${item}.model && cp settings/loss.csv ${item}.csv"
    assert command in pipeline
    (workspace / "dvc.yaml").write_text(pipeline.replace(command, "python -m fill"))
    (workspace / "fill.py").write_text(STAGE)
    (tmp_path / "disk").mkdir()
    settings = environment | {"PREFECT_API_URL": server, "DISK": str(tmp_path / "disk"), "PYTHONPATH": str(ROOT)}

    def run(script: str, megabytes: int) -> str:
        settings["BALLAST"] = str(megabytes << 20)
        command = [*UNSHARE, "bash", "-c", BEGIN + script]
        done = subprocess.run(command, env=settings, capture_output=True, text=True, check=False, timeout=400)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


def test_an_output_that_does_not_fit_is_one_sentence_and_no_retry(on_a_full_disk):
    log = on_a_full_disk(TOO_SMALL, megabytes=16)
    assert log.count("' - > python -m fill") == 1
    assert "pretrain@speech failed:" in log
    assert "error: [Errno 28] No space left on device" in log
    assert "Traceback" not in log
    assert "speech.model" not in log.splitlines()  # nothing half-written
    assert log.endswith("once more\nonce more\n")


def test_a_copy_that_does_not_fit_is_made_when_there_is_room(on_a_full_disk):
    said = on_a_full_disk(NO_COPY, megabytes=9)
    assert "Stages: 2 Completed" in said
    assert "Stage 'pretrain@speech' didn't change, skipping" in said
    assert said.endswith("\nonce more\n")
    assert said.count("once more") == 1
