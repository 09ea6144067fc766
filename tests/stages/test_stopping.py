"""Training that is told to stop saves first; one that is killed is in test_processes.py."""

import signal
import time
from pathlib import Path

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
