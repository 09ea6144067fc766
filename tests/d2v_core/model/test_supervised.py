"""Heads on labels."""

import pytest
import torch

from d2v_core.model.supervised import HeadConfig, Supervised, ctc_loss, pool
from tests.d2v_core.blocks import rows, small_setup


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
