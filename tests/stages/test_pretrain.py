"""Pretraining that goes on from a run, as docs/pretraining.md shows it: what is resumed, refused and published."""

import re
import shlex
import shutil
from pathlib import Path

import pytest
import torch
import yaml

from d2v_core.run import digest, read_config, read_weights
from stages import pretrain
from stages.params import merge
from tests.stages.test_joint import LOOP, OPTIMIZER
from tests.stages.test_training_stages import STATE, interrupt
from tests.tiny import ROOT, Project, contents

CHECKPOINTS = ROOT.parent / "shared/golden/checkpoints"
PAGE = (ROOT / "docs/pretraining.md").read_text(encoding="utf-8")
UPDATES = {"updates": 9, "accumulate": 1, "log_every": 3, "save_every": 2}


@pytest.fixture
def text(project) -> Project:
    """A project that begins pretraining text with models/first; models/second is another run."""
    project.prepare("text")
    for seed, name in enumerate(("first", "second")):
        project.set(seed=seed, modalities__text__pretrain__loop__updates=2)
        project.done("pretrain", "text")
        shutil.copytree("models/pretrain/text", f"models/{name}")
    project.set(seed=0, modalities__text__pretrain__loop=UPDATES, modalities__text__pretrain__start=named("first"))
    return project


def named(name: str) -> str:
    return f"models/{name}@{digest(Path('models') / name)}"


@pytest.mark.skipif(not CHECKPOINTS.is_dir(), reason="the golden numbers are not beside this checkout")
def test_the_page_takes_an_official_checkpoint_to_data_of_ones_own(project):
    shutil.copy(CHECKPOINTS / "v1_audio.pt", "audio_base_ls.pt")
    blocks = dict(zip(("convert", "repro", "copy"), re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL), strict=True))
    convert, _ = (shlex.split(line) for line in blocks["convert"].splitlines())
    start = project.done("convert", *convert[3:]).splitlines()[-1].partition("pretrain.start: ")[2]
    changes = yaml.safe_load(re.search(r"```yaml\n(.*?)```", PAGE, re.DOTALL)[1])
    speech = changes["modalities"]["speech"]
    assert re.fullmatch(re.sub("@.*", "@[0-9a-f]{12}", speech["pretrain"]["start"]), start)
    speech["pretrain"] |= {"start": start, "loop": {"updates": 2}}
    speech["corpus"]["raw"] = str(project.write("speech"))
    model = read_config(Path(convert[4]))["model"]
    speech["model"] = {"local": model["local"], "trunk": model["trunk"]}  # in place of the recipe's large ones
    project.params = merge(project.params, changes)
    project.set()
    assert shlex.split(blocks["repro"]) == ["dvc", "repro", "pretrain@speech"]
    for stage in ("vocabulary", "prepare", "pretrain"):
        project.done(stage, "speech")
    assert read_config(Path("models/pretrain/speech"))["pretrain"]["start"] == start
    assert blocks["copy"] == "cp -r models/pretrain/speech models/first\n"


def test_a_run_goes_on_from_its_start_and_from_where_it_was_stopped(text):
    pretrain.main("text")
    whole = contents(Path("models/pretrain")), contents(Path("plots")), contents(Path("metrics/text"))
    for update in (3, 6):
        interrupt(text, update)
    shutil.rmtree("models/first")
    pretrain.main("text")
    assert (contents(Path("models/pretrain")), contents(Path("plots")), contents(Path("metrics/text"))) == whole


def test_another_start_does_not_continue_an_old_run(text):
    interrupt(text, 6)
    (waiting,) = (path.parent for path in STATE.glob("*/*/LAST"))
    before = contents(waiting)
    for start in (named("second"), None):
        text.set(modalities__text__pretrain__start=start)
        pretrain.main("text")
        assert contents(waiting) == before


def test_a_folder_whose_weights_were_exchanged_is_refused(text):
    before = text.params["modalities"]["text"]["pretrain"]["start"]
    shutil.rmtree("models/first")
    shutil.copytree("models/second", "models/first")
    said = text.refused("pretrain", "text")
    assert said.endswith(f"set it to {named('first')}, not {before}.")
    text.set(modalities__text__pretrain__start=named("first"))
    text.set(modalities__text__pretrain__optimizer__rate=1e-30, modalities__text__pretrain__optimizer__weight_decay=0.0)
    text.done("pretrain", "text")
    start, end = (read_weights(Path(folder)) for folder in ("models/second", "models/pretrain/text"))
    for name, value in end.items():
        wanted = start[name.replace("teacher.", "encoder.")]
        torch.testing.assert_close(value, wanted, atol=1e-6, rtol=0, msg=name)


def test_a_run_cannot_begin_with_what_it_replaces(text):
    text.set(modalities__text__pretrain__start="models/pretrain/text")
    assert text.refused("pretrain", "text") == (
        "error: text: pretrain.start names models/pretrain/text, which this run replaces; copy it and name the copy."
    )


def test_members_of_a_joint_run_begin_at_random(project):
    block = {"members": ["text", "vision"], "trunk": {"depth": 2}, "optimizer": OPTIMIZER, "loop": LOOP}
    project.set(joint={"both": block}, modalities__text__pretrain__start="models/first")
    assert "modalities.text.pretrain.start must be null in a joint run" in project.refused("joint", "both")


def test_a_start_is_replayed(text):
    said = text.done("replay", "text", "0")
    text.set(modalities__text__pretrain__start=None)
    assert said.splitlines()[0] == "weights of update 0"
    assert said != text.done("replay", "text", "0")
