"""One optimizer step per update, gradients per masked token, accumulation that changes nothing."""

from dataclasses import replace
from itertools import repeat

import pytest
import torch

from d2v_core.errors import UserError
from d2v_core.training.loop import LoopConfig, fit
from d2v_core.training.optimizer import make_optimizer
from tests.d2v_core.blocks import masked_batch, small_model, small_setup

LOOP = LoopConfig(updates=3, accumulate=1, log_every=1, save_every=10)


def train(batches, loop, seed=0):
    setup, config = small_setup("vision")
    _, model = small_model("vision")
    rates = replace(config.optimizer, rate=1e-2, phases=(0.0,))
    begun = []
    begin = model.begin_update
    model.begin_update = lambda update: (begun.append(update), begin(update))
    records = list(fit(model, make_optimizer(model, rates), iter(batches(setup)), loop, rates, seed))
    return model, records, begun


def test_the_teacher_moves_once_per_update_however_many_batches_make_one():
    _, records, begun = train(lambda setup: repeat(masked_batch("vision", setup)), replace(LOOP, accumulate=4))
    assert begun == [0, 1, 2]
    assert [record["update"] for record in records] == [1, 2, 3]


def test_accumulating_parts_equals_one_large_batch():
    def whole(setup):
        return repeat(masked_batch("vision", setup, 8))

    def parts(setup):
        batch = masked_batch("vision", setup, 8)
        pieces = [
            {
                "inputs": batch["inputs"][rows],
                "mask": batch["mask"][rows],
                "masked": batch["mask"][rows].flatten().nonzero()[:, 0],
            }
            for rows in (slice(0, 3), slice(3, 8))
        ]
        return (pieces[n % 2] for n in range(100))

    large, large_records, _ = train(whole, LOOP)
    small, small_records, _ = train(parts, replace(LOOP, accumulate=2))
    for one, other in zip(large_records, small_records, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-5)
    for one, other in zip(large.student.parameters(), small.student.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_training_lowers_the_loss_and_records_what_a_person_wants_to_see():
    _, records, _ = train(lambda setup: repeat(masked_batch("vision", setup)), replace(LOOP, updates=30, log_every=10))
    shown = [record for record in records if record]
    assert len(records) == 30
    assert [record["update"] for record in shown] == [10, 20, 30]
    assert shown[-1]["loss"] < shown[0]["loss"]
    assert {"loss", "rate", "norm", "decay", "target_spread", "prediction_spread", "position_share"} <= set(shown[0])


def test_a_loss_that_is_not_finite_ends_the_run_with_a_sentence():
    def broken(setup):
        batch = masked_batch("vision", setup)
        return repeat(batch | {"inputs": batch["inputs"] * float("nan")})

    with pytest.raises(UserError, match="the loss became nan at update 0"):
        train(broken, LOOP)
