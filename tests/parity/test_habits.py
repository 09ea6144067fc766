"""Both behaviours where ours is not the reference's: which numbers change, and what ours is for."""

import dataclasses

import pytest
import torch
from torch import nn

from d2v_core.data.order import key
from d2v_core.modalities import text
from d2v_core.model.data2vec import Data2Vec
from d2v_core.pretraining import hide
from d2v_core.setup import make_setup
from tests.parity.comparison import rows
from tests.parity.habits import COUNT_PADDING, HABITS, scale_results, switched_on
from tests.parity.measure import measure, with_noise
from tests.parity.models import CASES, GOLDEN, block_of, golden, make
from tests.parity.passes import inputs_of

pytestmark = pytest.mark.skipif(not GOLDEN.is_dir(), reason="the golden numbers are not beside this checkout")
SAME = 2e-5
OTHER = 1e-2


def apart(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).abs().max())


def batch_and_each_alone(name: str) -> tuple[dict, list[dict]]:
    inputs = {key: value for key, value in inputs_of(name).items() if key in ("inputs", "lengths")}
    lengths = inputs.get("lengths", (inputs["inputs"] != text.PAD).sum(dim=1)).tolist()
    return inputs, [
        {"inputs": row[:length].unsqueeze(0)} for row, length in zip(inputs["inputs"], lengths, strict=True)
    ]


def targets(model: Data2Vec, inputs: dict) -> torch.Tensor:
    features, padding = model.student.local(inputs)
    return model.targets(inputs, features, padding)


@torch.no_grad()
def largest_change_by_padding(name: str, compute) -> float:
    """Return how far values of an item alone are from those of its real tokens in the padded batch."""
    together, alone = batch_and_each_alone(name)
    padded = compute(together)
    return max(apart(compute(one)[0], padded[row, : compute(one).shape[1]]) for row, one in enumerate(alone))


@pytest.mark.parametrize("name", ["v1_audio", "v2_audio"])
def test_features_of_an_utterance_alone_are_those_in_a_batch_here_and_not_in_the_reference(name):
    student = make(name).student
    assert largest_change_by_padding(name, lambda inputs: student(inputs).x) < SAME
    with switched_on(HABITS[name]):
        assert largest_change_by_padding(name, lambda inputs: student(inputs).x) > OTHER


@pytest.mark.parametrize("name", ["v1_audio", "v2_audio", "v2_text"])
def test_targets_of_an_item_alone_are_those_in_a_batch_here_and_not_in_the_reference(name):
    model = make(name)
    assert largest_change_by_padding(name, lambda inputs: targets(model, inputs)) < SAME
    with switched_on((COUNT_PADDING,)):
        assert largest_change_by_padding(name, lambda inputs: targets(model, inputs)) > OTHER


def test_without_padding_speech_is_the_reference_without_any_of_its_habits():
    found = [row for row in rows("v1_audio", measure("v1_audio", habits=())) if row.quantity.startswith("nopad/")]
    assert len(found) == 8
    assert all(row.holds for row in found)


def test_the_released_text_pipeline_shows_the_teacher_masked_tokens_alone():
    dumped, model = golden("v1_text"), make("v1_text")
    full, released = inputs_of("v1_text"), inputs_of("v1_text", "released_pipeline/")
    assert released["inputs"].equal(full["inputs"].where(full["mask"], torch.tensor(text.PAD)))
    with torch.no_grad():
        assert apart(model(full).masked_targets, dumped["target/y"]) < SAME
        assert apart(model(released).masked_targets, dumped["released_pipeline/target/y"]) < SAME
    assert apart(dumped["target/y"], dumped["released_pipeline/target/y"]) > OTHER


@torch.no_grad()
def test_the_vision_port_leaves_out_the_head_and_the_norm_of_every_block():
    dumped, port, inputs = golden("v1_vision"), make("v1_vision"), inputs_of("v1_vision")
    assert port(inputs).total.item() == pytest.approx(dumped["loss"].item(), rel=1e-5)
    port.head = nn.Linear(32, 32)  # as ours has one
    port.head.load_state_dict({part: dumped[f"weights/final_proj.{part}"] for part in ("weight", "bias")})
    assert apart(port(inputs).predictions, dumped["student/x"]) > OTHER
    official = dataclasses.replace(port.config.targets, norm_each=("layer",))
    port.config = dataclasses.replace(port.config, targets=official)
    assert apart(port(inputs).targets, dumped["target/y_full"]) > OTHER


@torch.no_grad()
def test_the_feed_forward_result_is_taken_before_the_layer_scale_here_and_after_it_in_the_reference():
    model, inputs = make("v1_vision"), inputs_of("v1_vision")
    theirs = golden("v1_vision")["alt_ffn_targets/target/layer_3"]
    last = model.teacher.encoder.trunk.blocks[-1]
    ours = model.teacher.encoder(inputs | {"mask": None}).results[-1]
    assert apart(ours * last.feedforward_scale, theirs) < SAME
    assert apart(ours, theirs) > OTHER
    last.register_forward_hook(scale_results)
    assert apart(model.teacher.encoder(inputs | {"mask": None}).results[-1], theirs) < SAME


def test_masked_padding_counts_in_the_reference_and_is_never_predicted_here():
    inputs = inputs_of("v2_text")
    padding = (inputs["inputs"] == text.PAD).repeat_interleave(3, dim=0)
    dumped = golden("v2_text")
    assert (inputs["mask"] & padding).any()
    assert int(dumped["sample_size"]) == int(inputs["mask"].sum())
    setup = make_setup("text", block_of(CASES["v2_text"]), "text")
    hidden = hide(setup, {"inputs": inputs["inputs"]}, [key(0, row, view) for row in range(2) for view in range(3)])
    assert (hidden["mask"] & padding).any()
    assert not padding.flatten()[hidden["masked"]].any()
    assert len(hidden["masked"]) == int((hidden["mask"] & ~padding).sum())


@torch.no_grad()
def test_padding_is_embedded_as_zeros_here_which_only_the_decoder_can_see():
    model, inputs, dumped = make("v2_text"), inputs_of("v2_text"), golden("v2_text")
    padding = inputs["inputs"] == text.PAD
    tokens, _ = model.student.local(inputs)
    assert not tokens[padding].any()
    assert dumped["inter/local_features"][padding].any()
    features = model.student({"inputs": inputs["inputs"]}).x
    assert apart(features[~padding], dumped["extract/x"][~padding]) < SAME
    assert apart(features[padding], dumped["extract/x"][padding]) > OTHER


@pytest.mark.parametrize("name", ["v2_audio", "v2_text", "v2_image"])
@torch.no_grad()
def test_the_order_of_visible_tokens_changes_nothing(name):
    inputs = inputs_of(name)
    ascending = inputs | {"visible": inputs["visible"].sort(dim=1).values}
    assert not ascending["visible"].equal(inputs["visible"])
    model = with_noise(name, make(name))
    with switched_on(HABITS.get(name, ())):
        assert apart(model(ascending).predictions, golden(name)["student/x"]) < SAME
