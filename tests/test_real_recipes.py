"""The recipes behind docs/real.md: they lay over params.yaml, build, and give both arms the same schedule."""

import json
import random
import shutil
from pathlib import Path

import pytest
import torch

from benchmarks import real_corpora, seeds
from benchmarks.masked_words import MaskedWords
from d2v_core.config import build
from d2v_core.finetuning import FinetuneConfig, finetuned_setup
from d2v_core.model.supervised import Supervised
from d2v_core.pretraining import PretrainConfig, make_model
from d2v_core.setup import make_setup
from stages import params, recipes
from stages.layouts import CorpusConfig
from stages.probe import ProbeConfig
from stages.vocabulary import VocabularyConfig

ROOT = Path(__file__).parents[1]
NAMES = sorted(f"real/{path.stem}" for path in ROOT.glob("recipes/real/*.yaml"))
FEW = 64  # classes, at most


@pytest.fixture(params=NAMES)
def changes(request, tmp_path, monkeypatch) -> dict:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(recipes, "FOLDER", ROOT / "recipes")
    shutil.copy(ROOT / "params.yaml", tmp_path)
    recipes.main(request.param)
    return params.load(ROOT / "recipes" / f"{request.param}.yaml")


def setup(name: str):
    return make_setup(name, params.modality(name), name)


def test_there_is_one_for_every_modality():
    blocks = [params.load(ROOT / "recipes" / f"{name}.yaml")["modalities"] for name in NAMES]
    assert {modality for block in blocks for modality in block} == {"speech", "vision", "text"}


def test_it_builds_a_model_that_pretrains(changes):
    for name in changes["modalities"]:
        params.read(CorpusConfig, f"modalities.{name}.corpus")
        params.read(VocabularyConfig, f"modalities.{name}.vocabulary")
        for version in (1, 2):
            block = params.modality(name, version)
            config = build(PretrainConfig, block["pretrain"], name)
            with torch.device("meta"):
                make_model(make_setup(name, block, name), config)
            teacher = config.objective.teacher
            assert teacher.start <= teacher.end < 1
            assert teacher.ramp <= config.loop.updates


def test_its_tasks_build_and_say_their_labels_and_their_length(changes):
    for corpus in changes["labelled"]:
        params.read(CorpusConfig, f"labelled.{corpus}.corpus")
    for name, block in changes["tasks"].items():
        assert block["table"] in changes["labelled"]
        assert block["modality"] in changes["modalities"]
        train = params.read(FinetuneConfig, f"tasks.{name}.train")
        probe = params.read(ProbeConfig, f"tasks.{name}.probe")
        assert train.per_class == (0 if train.head.kind == "ctc" else probe.per_class)
        assert name.endswith(("_short", "_long"))
        with torch.device("meta"):
            width = setup(block["modality"]).trunk.width
            Supervised(finetuned_setup(setup(block["modality"]), train).encoder(), train.head, width, FEW)


def test_a_short_and_a_long_task_differ_in_nothing_but_their_schedule(changes):
    tasks = changes["tasks"]
    shorts = [name for name in tasks if name.endswith("_short")]
    assert shorts
    for name in shorts:
        short, long = tasks[name], tasks[f"{name.removesuffix('_short')}_long"]
        assert long["train"]["loop"]["updates"] > short["train"]["loop"]["updates"]
        for block in (short, long):
            block["train"] = {key: value for key, value in block["train"].items() if key not in ("loop", "optimizer")}
        assert short == long


def test_no_review_for_choosing_shares_words_with_one_to_learn_from():
    film = "a film so good that nobody will ever forget it"
    texts = [film, "so good", f"{film} or not", "something else", "one two three four five six seven eight nine"]
    train, valid = real_corpora.separate([{"sentence": text, "label": "1"} for text in texts], random.Random(1))
    assert len(valid) == 3
    assert [row["sentence"] for row in train] == ["something else"]


def test_a_phrase_inside_another_sentence_is_left_out():
    film = "a film so good that nobody forgets it"
    assert real_corpora.longest(["so good that nobody", film, "what else is there", film]) == [
        film,
        "what else is there",
    ]


def test_the_table_over_seeds_pools_the_values_of_all_folders(tmp_path):
    for number in (1, 2, 3):
        scores = {"accuracy": {"mean": number, "values": [number], "deviation": None}}
        path = tmp_path / f"{number}" / "metrics" / "task" / "evaluate.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({arm: {"valid": scores, "test": scores} for arm in ("pretrained", "scratch")}))
    lines = seeds.table("evaluate", ("pretrained", "scratch"), sorted(tmp_path.iterdir()))
    assert lines[2] == "| task | accuracy | 2.0 ± 1.0 | 2.0 ± 1.0 | 2.0 ± 1.0 | 2.0 ± 1.0 | 3 |"


def test_masked_words_learns_to_name_what_is_hidden():
    torch.manual_seed(0)
    values = params.load(ROOT / "params.yaml")["modalities"]["text"]
    model = MaskedWords(make_setup("text", values, "text"))
    whole = torch.arange(8, 24).unsqueeze(0)
    inputs = {"inputs": whole, "corrupted": whole.clone(), "masked": torch.tensor([3, 7])}
    inputs["corrupted"][0, [3, 7]] = values["table"]["vocabulary"] - 1
    optimizer, losses = torch.optim.Adam(model.parameters(), 1e-3), []
    for _ in range(30):
        loss = model(inputs)
        optimizer.zero_grad()
        (loss.total / loss.count).backward()
        optimizer.step()
        losses.append(loss.total.item())
    assert int(loss.count) == 2
    assert losses[-1] < losses[0] / 2
