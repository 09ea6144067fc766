"""Pretraining that begins with the weights of a run: which weights, which runs fit, and what resuming makes of it."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from d2v_core.errors import UserError
from d2v_core.interop import fairseq
from d2v_core.interop.names import their_names
from d2v_core.interop.settings import Settings
from d2v_core.pretraining import first_model
from d2v_core.run import digest, write_run
from d2v_core.setup import Setup
from d2v_core.starting import kept
from stages.pretrain import weights
from tests.d2v_core.blocks import MODALITIES, small_block, small_model, small_setup
from tests.d2v_core.test_pretraining import configure, make_table, run
from tests.test_recipes import MODELS, setup_of


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return Path("models/first")


def write(folder: Path, name: str, version: int = 1, **more: object) -> nn.Module:
    """Write a run with random weights and a teacher of its own; return its model."""
    setup, model = small_model(name, seed=7, version=version)
    for value in model.teacher.encoder.parameters():
        nn.init.normal_(value)
    write_run(folder, {**setup.describe(), **more}, weights(model))
    return model


def begun(name: str, start: str, version: int = 1, setup: Setup | None = None) -> nn.Module:
    own, config = small_setup(name, small_block(name, version))
    return first_model(setup or own, replace(config, start=start), 0, Path("state"))


def named(folder: Path) -> str:
    return f"{folder}@{digest(folder)}"


def same(ours: nn.Module, theirs: nn.Module) -> bool:
    first, second = ours.state_dict(), theirs.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("name", MODALITIES)
@pytest.mark.parametrize("version", [1, 2])
def test_student_and_teacher_begin_with_the_runs_student_and_the_head_with_its_head(folder, name, version):
    model = write(folder, name, version)
    started = begun(name, named(folder), version)
    assert same(started.student, model.student)
    assert same(started.teacher.encoder, model.student)
    assert same(started.head, model.head)
    assert not same(started.student, small_model(name, version=version)[1].student), "they are not those of the seed"
    assert not any(value.requires_grad for value in started.teacher.parameters())


@pytest.mark.parametrize("more", [{}, {"head": "ctc", "symbols": []}])
def test_a_head_of_another_kind_or_for_labels_stays_new(folder, more):
    version = 1 if more else 2
    model = write(folder, "text", version, **more)
    started = begun("text", named(folder), version=1)
    assert same(started.student, model.student)
    assert same(started.head, small_model("text", seed=0)[1].head)


def test_how_a_run_learnt_may_differ(folder):
    write(folder, "vision")
    setup, _ = small_setup("vision")
    begun("vision", named(folder), setup=replace(setup, trunk=replace(setup.trunk, drop_path=0.3, layer_scale=1e-5)))


@pytest.mark.parametrize(
    ("name", "trunk", "key"),
    [
        ("vision", {"width": 32}, "model.trunk.width is 32, but 16"),
        ("vision", {"heads": 4}, "model.trunk.heads is 4, but 2"),
        ("vision", {"layer_scale": None}, "model.trunk.layer_scale is None, but a number"),
        ("speech", {"norm": "pre"}, "model.trunk.norm is pre, but post"),
        ("text", {"depth": 3}, "model.trunk.depth is 3, but 2"),
    ],
)
def test_another_trunk_is_refused_by_its_key(folder, name, trunk, key):
    write(folder, name)
    setup, _ = small_setup(name)
    with pytest.raises(UserError, match=f"^{name}: {key} in models/first, which pretrain.start names; [^.]+[.]$"):
        begun(name, named(folder), setup=replace(setup, trunk=replace(setup.trunk, **trunk)))


def test_another_table_or_local_encoder_is_refused_by_its_key(folder):
    write(folder, "text")
    block = small_block("text")
    block["table"]["vocabulary"] += 1
    with pytest.raises(UserError, match=r"text: table\.vocabulary is 1001, but 1000 in models/first"):
        begun("text", named(folder), setup=small_setup("text", block)[0])
    write(folder, "speech", version=2)
    with pytest.raises(UserError, match=r"speech: model\.local\.mask_token is True, but False in models/first"):
        begun("speech", named(folder), version=1)


def test_another_modality_is_refused(folder):
    write(folder, "text")
    with pytest.raises(UserError, match=r"vision: pretrain\.start names models/first, which is a model of text"):
        begun("vision", named(folder))


@pytest.mark.parametrize("ending", ["", "@0123456789ab"])
def test_a_start_must_say_which_weights_it_means(folder, ending):
    write(folder, "text")
    with pytest.raises(UserError, match=rf"set it to {named(folder)}, not models/first{ending}\.$"):
        begun("text", f"{folder}{ending}")


def test_what_is_no_run_is_refused(folder):
    with pytest.raises(UserError, match=r"models/first is not a run folder \(config.json is missing\)"):
        begun("text", "models/first@0123456789ab")
    write(folder, "text")
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"models/first/model.safetensors cannot be read"):
        begun("text", "models/first@0123456789ab")


@pytest.mark.parametrize("version", [1, 2])
def test_a_resumed_run_ends_in_the_same_bits_though_its_start_is_gone(folder, version):
    write(folder, "vision", version)
    setup, config = configure("vision", updates=6, version=version)
    config = replace(config, start=named(folder))
    table = make_table(Path("table"), "vision", setup)
    whole, records = run(setup, config, table, Path("whole"))
    run(setup, config, table, Path("halves"), stop_after=3)
    shutil.rmtree(folder)
    resumed, late = run(setup, config, table, Path("halves"))
    assert late == records[2:], "it went on from update 2, the last that was saved"
    assert same(resumed, whole)


@pytest.mark.parametrize("version", [1, 2])
def test_a_trained_start_has_less_to_learn(folder, version):
    setup, config = configure("vision", updates=40, version=version)
    table = make_table(Path("table"), "vision", setup)
    model, records = run(setup, config, table, Path("first"))
    write_run(folder, setup.describe(), weights(model))
    _, again = run(setup, replace(config, start=named(folder)), table, Path("second"), stop_after=1)
    assert again[0]["loss"] < 0.95 * records[0]["loss"]


def official(setup: Setup, layout: fairseq.Layout) -> Setup:
    """Return what is read of a published file of the size of ``setup``, none of whose settings are known."""
    with torch.device("meta"):
        ours = setup.encoder().state_dict()
    theirs: dict[str, Tensor] = {}
    for name, value in ours.items():
        targets, stacked = their_names(name, layout.names)
        theirs |= dict(zip(targets, value.unbind() if stacked else value.chunk(len(targets)), strict=True))
    alibi = next((name for name in theirs if name.endswith("alibi_scale")), None)
    theirs |= {alibi: torch.ones(theirs[alibi].shape)} if alibi else {}
    return fairseq.setup_of(layout, theirs, Settings({}), None, Path("official.pt"))


@pytest.mark.parametrize("name", [name for name in MODELS if not name.startswith("v2/vision")])
def test_official_checkpoints_fit_the_recipes_of_their_models(name):
    setup, _ = setup_of(name)
    layouts = [each for each in fairseq.VERSION_1 + fairseq.VERSION_2 if each.modality == setup.name]
    layout = next(each for each in layouts if each.version == setup.version)
    assert dict(kept(official(setup, layout).describe())) == dict(kept(setup.describe()))
