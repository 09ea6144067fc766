"""Places: never more at once than there are, nothing after the end, and no child that outlives its parent."""

import os
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from flows.slots import Slots, StoppedError

ROOT = Path(__file__).parents[2]


def test_no_more_children_than_places():
    slots, spans = Slots(cpu=2, gpu=1), {"cpu": [], "gpu": []}

    def work(resource: str) -> None:
        with slots.start(resource, ["sleep", "1"]) as process:
            began = time.monotonic()
            process.wait()
            spans[resource].append((began, time.monotonic()))

    threads = [threading.Thread(target=work, args=[resource]) for resource in ("cpu", "cpu", "gpu", "gpu")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (first, second), (third, fourth) = sorted(spans["cpu"]), sorted(spans["gpu"])
    assert second[0] < first[1]
    assert fourth[0] >= third[1]


def test_closing_ends_what_runs_and_lets_nothing_start():
    slots = Slots(gpu=1)
    with slots.start("gpu", ["sleep", "60"]) as process:
        slots.close()
        assert process.wait(5) < 0
    with pytest.raises(StoppedError), slots.start("gpu", ["true"]):
        pass


def test_an_error_in_the_block_ends_the_child():
    with pytest.raises(ValueError, match="mine"), Slots(cpu=1).start("cpu", ["sleep", "60"]) as process:
        raise ValueError("mine")
    assert process.returncode < 0


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
def test_a_killed_parent_takes_its_child_along():
    code = "from flows.slots import launch; print(launch(['sleep', '60']).pid, flush=True); input()"
    parent = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    child = int(parent.stdout.readline())
    parent.kill()
    parent.communicate(timeout=5)
    assert ended(child)


def ended(process: int) -> bool:
    """Tell whether ``process`` ends within 5 seconds; a zombie has ended."""
    for _ in range(50):
        try:
            if Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.1)
    with suppress(ProcessLookupError):
        os.kill(process, 9)
    return False
