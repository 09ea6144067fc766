"""Training that is told to stop saves first, and one that is killed goes on."""

import os
import random
import signal
import time
from pathlib import Path

import pytest

from stages import pretrain
from tests.tiny import Project

LONG = {"updates": 4000, "accumulate": 2, "log_every": 1, "save_every": 4000}


def saved(project: Project) -> list[Path]:
    return list((project.folder / "state/checkpoints").glob("pretrain-text/*/LAST"))


def test_sigterm_saves_after_the_update_it_is_in_and_the_next_run_goes_on(project):
    project.set(modalities__text__pretrain__loop=LONG)
    project.prepare("text")
    process = project.start("pretrain", "text")
    log = project.folder / "state/speed/pretrain-text.csv"
    while not log.exists():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    (sentence,) = said.splitlines()
    update = int(sentence.removeprefix("stopped after update ").split()[0])
    assert sentence == f"stopped after update {update} of 4000; run it again to go on."
    (last,) = saved(project)
    assert last.read_text() == f'"update-{update}.pt"'
    assert not (project.folder / "models/pretrain/text").exists()
    assert not project.unfinished


KILLS = 20 if os.environ.get("D2V_NIGHTLY") else 3


@pytest.mark.parametrize(("name", "version"), [("vision", 2), ("text", 1)] if KILLS > 3 else [("vision", 2)])
def test_however_often_it_is_killed_a_run_ends_in_the_same_bits(project, name, version):
    loop = {"updates": 60 * KILLS, "accumulate": 2, "log_every": 50, "save_every": 10}
    project.set(**{f"modalities__{name}__version": version, f"modalities__{name}__pretrain__loop": loop})
    project.prepare(name)
    pretrain.main(name)
    model = project.folder / f"models/pretrain/{name}/model.safetensors"
    curve = project.folder / f"plots/{name}/pretrain.csv"
    whole = model.read_bytes(), curve.read_text()
    model.unlink()
    rng, killed = random.Random(0), 0
    while killed < KILLS:
        process = project.start("pretrain", name)
        reached = last_update(project, name)
        while last_update(project, name) == reached and process.poll() is None:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.1))  # saving takes a good part of that: many kills fall into it
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL, "the run ended before it could be killed often enough"
        killed += 1
    pretrain.main(name)
    assert (model.read_bytes(), curve.read_text()) == whole


def last_update(project: Project, name: str) -> str:
    """Return what the last checkpoint of a run is called; nothing if there is none."""
    pointers = list((project.folder / "state/checkpoints").glob(f"pretrain-{name}/*/LAST"))
    return pointers[0].read_text() if pointers else ""
