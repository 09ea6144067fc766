"""Heads on labels."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from d2v_core.model.supervised import HeadConfig, Supervised, ctc_loss, hidden_states, linear_softmax, pool
from tests.d2v_core.blocks import MODALITIES, rows, small_block, small_setup


def test_pooling_leaves_padding_out():
    x = torch.randn(2, 5, 3)
    padding = torch.tensor([[False] * 5, [False, False, True, True, True]])
    torch.testing.assert_close(pool(x, padding)[1], x[1, :2].mean(0))
    torch.testing.assert_close(pool(x, None), x.mean(1))


def test_ctc_gives_the_sum_over_samples_and_ignores_padded_frames():
    logits = torch.randn(2, 12, 5)
    padding = torch.zeros(2, 12, dtype=torch.bool)
    padding[1, 8:] = True
    labels = torch.tensor([[1, 2, 3], [4, 1, -1]])
    alone = ctc_loss(logits[:1], None, labels[:1]) + ctc_loss(logits[1:, :8], None, labels[1:, :2])
    torch.testing.assert_close(ctc_loss(logits, padding, labels), alone)


def test_a_transcript_longer_than_its_audio_costs_nothing_instead_of_infinity():
    assert ctc_loss(torch.randn(1, 2, 5), None, torch.tensor([[1, 2, 3, 4]])) == 0


@pytest.mark.parametrize("kind", ["mean", "class", "first"])
def test_the_last_weights_start_with_the_spread_they_are_told(kind):
    setup, _ = small_setup("vision")
    for spread in (0.02, 2e-5):
        torch.manual_seed(0)
        model = Supervised(setup.encoder(), HeadConfig(kind, 0, 0.0, spread), 16, 1000)
        last = model.head if kind == "class" else model.head[-1]
        assert float(last.weight.detach().std()) == pytest.approx(spread, rel=0.02)
        assert float(last.weight.detach().abs().max()) < 6 * spread
        assert not last.bias.any()
    own = Supervised(setup.encoder(), HeadConfig("class", 0, 0.0), 16, 1000).head
    assert float(own.weight.detach().std()) > 0.1


@pytest.mark.parametrize(("name", "kind"), [("vision", "mean"), ("text", "first"), ("speech", "ctc")])
def test_the_encoder_rests_while_it_is_frozen_and_learns_afterwards(name, kind):
    setup, _ = small_setup(name)
    model = Supervised(setup.encoder(), HeadConfig(kind, 2, 0.0), 16, 7)
    inputs = setup.modality.batch(rows(name, 3), None, setup.config)
    inputs["labels"] = torch.tensor([[1, 2], [3, -1], [4, 5]]) if kind == "ctc" else torch.tensor([0, 1, 2])
    for update, learns in ((0, False), (1, False), (2, True)):
        model.zero_grad(set_to_none=True)
        model.begin_update(update)
        model(inputs).total.backward()
        assert all(parameter.grad is not None for parameter in model.head.parameters())
        assert any(parameter.grad is not None for parameter in model.encoder.parameters()) == learns


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 9), st.floats(0.1, 30))
def test_pooling_by_linear_softmax_is_its_definition(seed, tokens, scale):
    torch.manual_seed(seed)
    logits = scale * torch.randn(3, tokens, 4)
    p = logits.double().sigmoid()
    expected = (p.square().sum(1) / p.sum(1)).clamp(max=1 - 1e-6).float()
    found = linear_softmax(logits, None)
    torch.testing.assert_close(found.sigmoid(), expected, atol=2e-6, rtol=1e-4)
    assert torch.isfinite(found).all()
    constant = logits[:, :1].expand(-1, tokens, -1).clamp(-12, 12)
    torch.testing.assert_close(linear_softmax(constant, None), constant[:, 0], atol=0.02, rtol=0.01)


def test_pooling_by_linear_softmax_leaves_padding_out_also_of_gradients():
    logits = torch.randn(2, 6, 3, requires_grad=True)
    padding = torch.tensor([[False] * 6, [False] * 2 + [True] * 4])
    torch.testing.assert_close(linear_softmax(logits, padding)[1], linear_softmax(logits[1:, :2], None)[0])
    (linear_softmax(logits, padding) * 1e4).sum().backward()
    assert torch.isfinite(logits.grad).all()
    assert not logits.grad[1, 2:].any()
    assert logits.grad[1, :2].all()


def test_tags_learn_every_class_by_itself_and_gradients_are_divided_by_the_labels():
    setup, _ = small_setup("speech")
    model = Supervised(setup.encoder(), HeadConfig("tags", 0, 0.0), 16, 5)
    inputs = setup.modality.batch(rows("speech", 3), None, setup.config)
    inputs["labels"] = torch.tensor([[1, 0, 1, 0, 0], [0, 0, 0, 0.3, 0.7], [1, 1, 1, 0, 0]])
    logits, _ = model.logits(inputs)
    p = logits.sigmoid()
    expected = -(inputs["labels"] * p.log() + (1 - inputs["labels"]) * (1 - p).log()).sum()
    loss = model(inputs)
    torch.testing.assert_close(loss.total, expected)
    assert float(loss.count) == 6
    assert loss.samples == 3


@pytest.mark.parametrize("kind", ["tags", "mean"])
def test_a_sound_gets_the_same_answer_alone_and_in_a_batch(kind):
    setup, _ = small_setup("speech")
    model = Supervised(setup.encoder(), HeadConfig(kind, 0, 0.0), 16, 5).eval()
    sounds = rows("speech", 4)
    together, _ = model.logits(setup.modality.batch(sounds, None, setup.config))
    alone, _ = model.logits(setup.modality.batch(sounds[:1], None, setup.config))
    torch.testing.assert_close(together[:1], alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("name", "version"), [(name, version) for name in MODALITIES for version in (1, 2)])
def test_a_head_on_all_layers_learns_their_weights_over_a_frozen_encoder(name, version):
    setup, _ = small_setup(name, small_block(name, version))
    kind = {"speech": "tags", "vision": "mean", "text": "first"}[name]
    model = Supervised(setup.encoder(), HeadConfig(kind, 1, 0.0, layers="weighted"), 16, 5).eval()
    inputs = setup.modality.batch(rows(name, 3), None, setup.config)
    states, encoded = hidden_states(model.encoder, inputs)
    assert len(states) == len(model.layer_weights) == 1 + len(encoded.outputs) == 3
    assert all(state.shape == encoded.x.shape for state in states)
    torch.testing.assert_close(model.encode(inputs).x, sum(states) / 3)
    model.layer_weights.data[-1] = 50.0
    torch.testing.assert_close(model.encode(inputs).x, states[-1])
    model.layer_weights.data.zero_()
    model.begin_update(0)
    inputs["labels"] = torch.eye(5)[:3] if kind == "tags" else torch.tensor([0, 1, 2])
    model(inputs).total.backward()
    assert model.layer_weights.grad.any()
    assert all(parameter.grad is None for parameter in model.encoder.parameters())


def test_a_head_on_the_class_token_cannot_weigh_layers():
    with pytest.raises(ValueError, match="layers must be 'last' for the head 'class'"):
        HeadConfig("class", 0, 0.0, layers="weighted")
