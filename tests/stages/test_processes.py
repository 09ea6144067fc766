"""Stages on several processes: one publishes, a dead one ends the job with a sentence, and none stays behind."""

import csv
import itertools
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from stages import finetune, pretrain
from stages.training import CsvLog
from tests.nightly import NIGHTLY, nightly
from tests.ranks import begin, on_ranks
from tests.tiny import Project, environment

LOOP = {"updates": 4, "accumulate": 2, "log_every": 1, "save_every": 2}
LONG = {"updates": 4000, "accumulate": 4, "log_every": 1, "save_every": 5}
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone"]


def seen(stage, *arguments: str) -> list[float]:
    """Run a stage; return the losses that this process writes down, before they are rounded."""
    found = []
    with pytest.MonkeyPatch.context() as patch:
        write = CsvLog.write
        patch.setattr(CsvLog, "write", lambda log, record: (found.append(record.get("loss")), write(log, record)))
        stage(*arguments)
    return [loss for loss in found if loss is not None]


def test_several_processes_fine_tune_like_one_and_the_first_publishes(project):
    project.set(tasks__transcribe__train__loop=LOOP, tasks__transcribe__train__seeds=[0, 1])
    project.set(modalities__speech__model__trunk__layer_drop=0.5)
    project.prepare("speech")
    alone = seen(finetune.main, "transcribe", "scratch")
    for folder in ("plots", "models"):
        os.rename(folder, f"{folder}-alone")
    answers = on_ranks(2, lambda _: seen(finetune.main, "transcribe", "scratch"))
    assert answers[1] == []
    assert answers[0] == pytest.approx(alone, rel=1e-6)
    runs = Path("models/finetune/transcribe/scratch")
    assert sorted(path.name for path in runs.iterdir()) == ["seed-0", "seed-1"]
    expected = load_file(f"models-alone/{runs.relative_to('models')}/seed-1/model.safetensors")
    for name, value in load_file(runs / "seed-1/model.safetensors").items():
        assert (value - expected[name]).abs().max() < 1e-4, name
    assert not saved(project)
    assert not project.unfinished


def saved(project: Project) -> list[Path]:
    return list((project.folder / "state/checkpoints").glob("*/*/LAST"))


def losses(project: Project) -> list[float]:
    with (project.folder / "plots/text/pretrain.csv").open(newline="") as lines:
        return [float(row["loss"]) for row in csv.DictReader(lines)]


def alive(project: Project) -> list[int]:
    """Return the processes whose working directory is the project, this one aside."""
    found = []
    for link in Path("/proc").glob("[0-9]*/cwd"):
        try:
            if link.readlink() == project.folder and int(link.parent.name) != os.getpid():
                found.append(int(link.parent.name))
        except OSError:
            continue
    return found


def ranks(launcher: subprocess.Popen) -> list[int]:
    """Return the processes that torchrun has started and that are alive."""
    command = ["ps", "--ppid", str(launcher.pid), "-o", "pid="]
    return [int(pid) for pid in subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()]


def until(reached, process: subprocess.Popen | None = None, pause: float = 0.01) -> None:
    end = time.monotonic() + 300
    while not reached():
        assert process is None or process.poll() is None, process.stderr.read()
        assert time.monotonic() < end, "it takes too long"
        time.sleep(pause)


@pytest.fixture
def started(project) -> tuple[Project, subprocess.Popen]:
    """A project whose pretraining runs on two processes and has saved."""
    project.set(modalities__text__pretrain__loop=LONG)
    project.prepare("text")
    project.set(processes=2)
    process = project.start("pretrain", "text")
    until(lambda: saved(project), process)
    return project, process


def last_saved(project: Project) -> int:
    (last,) = saved(project)
    return int(re.search(r"\d+", last.read_text())[0])


def test_a_dead_process_ends_the_job_with_a_sentence(started):
    project, process = started
    os.kill(ranks(process)[1], signal.SIGKILL)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert said.splitlines()[-1] == (
        "interrupted: process 1 of 2 was ended by SIGKILL; run it again and it goes on from its last checkpoint."
    )
    assert "interrupted: another process of this training is gone; run it again to go on." in said
    assert not alive(project)
    assert not (project.folder / "models").exists()


def test_a_launcher_that_is_told_to_stop_saves_and_one_that_is_killed_leaves_nobody(started):
    project, process = started
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert said.splitlines()[-1] == "stages.pretrain was stopped by SIGTERM; run it again to go on."
    first = last_saved(project)
    assert f"stopped after update {first} of 4000; run it again to go on." in said
    process = project.start("pretrain", "text")
    until(lambda: last_saved(project) > first, process)
    process.kill()
    process.communicate()
    began = time.monotonic()
    until(lambda: not alive(project) or time.monotonic() - began > 20)
    assert not alive(project)
    assert last_saved(project) % LONG["save_every"], "the processes that lost their launcher saved before they ended"
    assert len(list(saved(project)[0].parent.glob("update-*.pt"))) == 1


def test_batches_that_cannot_be_shared_out_are_refused(project):
    project.set(modalities__text__pretrain__loop__accumulate=1)
    project.prepare("text")
    answers = on_ranks(2, lambda _: project.refused("pretrain", "text"))
    assert answers == dict.fromkeys(range(2), "error: loop.accumulate (1) must be a multiple of the 2 processes.")


@nightly("starts torchrun")
def test_torchrun_starts_again_by_itself_after_a_death(project):
    loop = {"updates": 200, "accumulate": 2, "log_every": 10, "save_every": 5}
    project.set(modalities__vision__pretrain__loop=loop)
    project.prepare("vision")
    model = project.folder / "models/pretrain/vision/model.safetensors"
    command = [*TORCHRUN, "--nproc-per-node=2", "--max-restarts=1", "-m", "stages.pretrain", "vision"]

    def start() -> subprocess.Popen:
        return subprocess.Popen(command, cwd=project.folder, env=environment(), stderr=subprocess.PIPE, text=True)

    assert start().wait(300) == 0
    whole = model.read_bytes()
    model.unlink()
    process = start()
    until(lambda: saved(project), process)
    os.kill(ranks(process)[0], signal.SIGKILL)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert model.read_bytes() == whole


KILLS = 20 if NIGHTLY else 4
ALL = list(itertools.product(("speech", "vision", "text"), (1, 2), (1, 2)))


@pytest.mark.parametrize(("name", "version", "size"), ALL if NIGHTLY else [("vision", 2, 1)])
def test_kills_half_of_them_in_a_save_change_no_bit(project, name, version, size):
    loop = {"updates": 300 if NIGHTLY else 150, "accumulate": 2, "log_every": 50, "save_every": 5}
    project.set(**{f"modalities__{name}__version": version, f"modalities__{name}__pretrain__loop": loop})
    project.prepare(name)
    model, curve = (project.folder / path for path in (f"models/pretrain/{name}/model.safetensors", f"plots/{name}"))
    assert on_ranks(size, lambda _: pretrain.main(name), 600) == dict.fromkeys(range(size))
    whole = model.read_bytes(), (curve / "pretrain.csv").read_text()
    model.unlink()
    rng, torn, reached = random.Random(0), 0, 0
    for kill in range(KILLS):
        parts = begin(size, lambda _: pretrain.main(name))
        until(lambda before=reached: saved(project) and last_saved(project) > before)
        if kill % 2:
            until(lambda: list(saved(project)[0].parent.glob(".update-*.tmp")), pause=0.0)
        else:
            time.sleep(rng.uniform(0, 0.1))
        victim, _ = parts[rng.randrange(size)]
        victim.kill()
        victim.join()
        assert victim.exitcode == -signal.SIGKILL, "the run ended before it could be killed often enough"
        for process, _ in parts:
            process.join(60)
            assert not process.is_alive(), "the others end by themselves"
        torn += bool(list(saved(project)[0].parent.glob(".update-*.tmp")))
        reached = last_saved(project)
    assert on_ranks(size, lambda _: pretrain.main(name), 600) == dict.fromkeys(range(size))
    assert (model.read_bytes(), (curve / "pretrain.csv").read_text()) == whole
    assert torn or not NIGHTLY, "no kill fell into a save"
    print(f"{torn} of {KILLS} kills fell into a save, the last at update {reached}")
