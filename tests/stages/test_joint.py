"""Several modalities around one trunk: in turn, resumable, and each of them a run like any other."""

import csv
from pathlib import Path

import pytest
import torch

import d2v_core
from d2v_core.run import read_weights
from stages import joint
from tests.stages.test_training_stages import interrupt
from tests.tiny import contents

LOOP = {"updates": 12, "accumulate": 1, "log_every": 1, "save_every": 5}
TRUNK = {"norm": "post", "layer_scale": None, "key_bias": True, "final_norm": False, "init": "normal", "init_std": 0.05}
TRUNK |= {"epsilon": 1e-5, "dropout": 0.0, "attention_dropout": 0.0}
OPTIMIZER = {"rate": 1e-3, "schedule": "cosine", "phases": [0.1], "final": 0.0, "beta1": 0.9, "beta2": 0.98}
OPTIMIZER |= {"epsilon": 1e-6, "weight_decay": 0.01, "decay_all": True, "clip": 1.0}


@pytest.fixture
def both(project):
    members = ["vision", "text"]
    project.set(joint={"both": {"members": members, "trunk": TRUNK, "optimizer": OPTIMIZER, "loop": LOOP}})
    project.set(modalities__vision__version=2, modalities__text__version=2)
    return project.prepare("vision", "text", "topics")


def records() -> list[dict[str, str]]:
    with Path("plots/both/pretrain.csv").open(newline="") as lines:
        return list(csv.DictReader(lines))


def test_members_take_turns_share_blocks_and_are_runs_of_their_own(both):
    both.done("joint", "both")
    members = [int(row["member"]) for row in records()]
    assert all(sorted(members[start : start + 2]) == [0, 1] for start in range(0, 12, 2)), "one turn each per round"
    assert len({tuple(members[start : start + 2]) for start in range(0, 12, 2)}) == 2, "in no fixed order"
    vision, text = (read_weights(Path("models/joint/both") / name) for name in ("vision", "text"))
    for name in vision:
        if ".trunk.blocks." in f".{name}":
            assert torch.equal(vision[name], text[name]), name
    assert not torch.equal(
        vision["encoder.trunk.blocks.0.attention.qkv.weight"], vision["teacher.trunk.blocks.0.attention.qkv.weight"]
    )
    assert d2v_core.load("models/joint/both/text").embed([torch.arange(4, 12).numpy()])[0].shape == (9, 16)


def test_a_stopped_joint_run_ends_in_the_same_bits(both):
    joint.main("both")
    whole = contents(Path("models/joint")), contents(Path("plots/both"))
    for folder in ("models", "plots", "state"):
        both.folder.joinpath(folder).rename(both.folder / f"{folder}.old")

    interrupt(both, 8, joint.main, "both")
    assert list(Path("state/checkpoints/joint-both").glob("*/LAST"))
    joint.main("both")
    assert (contents(Path("models/joint")), contents(Path("plots/both"))) == whole


def test_tasks_start_from_a_member(both):
    both.set(modalities__vision__model__trunk=both.params["modalities"]["vision"]["model"]["trunk"] | TRUNK)
    both.done("joint", "both")
    both.set(tasks__digits__pretrained="models/joint/both/vision", tasks__topics__pretrained="models/joint/both/text")
    for task in ("digits", "topics"):
        for origin in ("pretrained", "scratch"):
            both.done("finetune", task, origin)
        both.done("evaluate", task)
        both.done("probe", task)
    both.set(tasks__digits__pretrained="models/joint/both/text")
    assert both.refused("finetune", "digits", "pretrained") == (
        "error: models/joint/both/text is a model of text; task 'digits' needs one of vision."
    )


def test_trunks_that_cannot_be_one_are_refused(both):
    both.set(modalities__text__model__trunk__depth=1, modalities__text__pretrain__objective__targets__layers=1)
    assert both.refused("joint", "both") == (
        "error: the trunks of vision and text differ in depth; set it in joint.trunk."
    )
    both.set(joint__both__members=["vision", "txt"])
    assert both.refused("joint", "both") == (
        "error: params.yaml: joint.both.members.txt is not a known key. Did you mean 'text'?"
    )
    both.set(joint__both__members=["vision"])
    assert both.refused("joint", "both") == "error: joint.members must name at least two modalities."
