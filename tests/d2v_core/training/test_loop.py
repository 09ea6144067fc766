"""One optimizer step per update, gradients per masked token, accumulation that changes nothing, and bad updates."""

from contextlib import nullcontext
from dataclasses import replace
from itertools import count, repeat

import pytest
import torch

from d2v_core.errors import UserError
from d2v_core.training.loop import LoopConfig, fit
from d2v_core.training.optimizer import make_optimizer
from tests.d2v_core.blocks import masked_batch, small_block, small_model, small_setup

LOOP = LoopConfig(updates=3, accumulate=1, log_every=1, save_every=10)


def train(batches, loop, name="vision", block=None):
    """Train a small model on what ``batches(setup)`` yields; return it, the steps and the begun updates."""
    block = block or small_block(name)
    setup, config = small_setup(name, block)
    _, model = small_model(name, block=block)
    rates = replace(config.optimizer, rate=1e-2, phases=(0.0,))
    begun = []
    begin = model.begin_update
    model.begin_update = lambda update: (begun.append(update), begin(update))
    amounts = ((1.0, batch) for batch in batches(setup))
    return model, list(fit(model, make_optimizer(model, rates), amounts, loop, rates, seed=0)), begun


def same(setup):
    return repeat(masked_batch("vision", setup))


def part(batch, rows):
    mask = batch["mask"][rows]
    return {"inputs": batch["inputs"][rows], "mask": mask, "masked": mask.flatten().nonzero()[:, 0]}


def test_the_teacher_moves_once_per_update_however_many_batches_make_one():
    _, steps, begun = train(same, replace(LOOP, accumulate=4))
    assert begun == [0, 1, 2]
    assert [step.record["update"] for step in steps] == [1, 2, 3]


def test_accumulating_parts_equals_one_large_batch():
    def whole(setup):
        return repeat(masked_batch("vision", setup, 8))

    def parts(setup):
        batch = masked_batch("vision", setup, 8)
        return (part(batch, slice(3, 8) if n % 2 else slice(0, 3)) for n in count())

    large, large_steps, _ = train(whole, LOOP)
    small, small_steps, _ = train(parts, replace(LOOP, accumulate=2))
    for one, other in zip(large_steps, small_steps, strict=True):
        assert one.record["loss"] == pytest.approx(other.record["loss"], rel=1e-5)
    for one, other in zip(large.student.parameters(), small.student.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_training_lowers_the_loss_and_records_what_a_person_wants_to_see():
    _, steps, _ = train(same, replace(LOOP, updates=30, log_every=10))
    shown = [step for step in steps if step.record]
    assert len(steps) == 30
    assert [step.update for step in shown] == [10, 20, 30]
    assert shown[-1].record["loss"] < shown[0].record["loss"]
    assert {"loss", "rate", "norm", "skipped", "decay", "target_spread", "position_share"} <= set(shown[0].record)
    speed = shown[1].speed
    assert speed["samples_per_second"] == pytest.approx(4 * speed["updates_per_second"])
    assert speed["tokens_per_second"] == pytest.approx(2 * 4 * 17 * speed["updates_per_second"]), "student and teacher"
    assert speed["teraflops_per_second"] > 0
    assert speed["padding"] == 0
    assert 0 <= speed["input_wait"] < 1


def test_the_share_of_padding_is_reported():
    def batches(setup):
        return repeat(masked_batch("text", setup, 4))

    _, steps, _ = train(batches, LOOP, "text", small_block("text"))
    lengths = [32 + n for n in range(4)]
    assert steps[-1].speed["padding"] == pytest.approx(1 - sum(lengths) / (4 * max(lengths)))


def test_a_collapse_ends_the_run_where_that_is_asked_for():
    def constant(setup):
        batch = masked_batch("vision", setup)
        return repeat(batch | {"inputs": torch.zeros_like(batch["inputs"])})

    block = small_block("vision")
    block["model"]["local"] |= {"bias": "none", "positions": 0.0}
    _, steps, _ = train(constant, LOOP, block=block)
    assert steps[-1].record["target_spread"] < 0.1
    _, steps, _ = train(constant, replace(LOOP, collapse_after=3), block=block)
    assert len(steps) == 3
    with pytest.raises(UserError, match=r"after 2 updates the targets hardly differ .*; lower optimizer\.rate"):
        train(constant, replace(LOOP, collapse_after=1), block=block)


def test_operations_are_counted_where_blocks_are_compiled(monkeypatch):
    counted = []
    for compiled in (False, True):
        setup, config = small_setup("vision")
        _, model = small_model("vision")
        monkeypatch.setattr(torch.compiler, "set_stance", lambda stance: nullcontext(counted.append(stance)))
        loop = replace(LOOP, compile=compiled)
        (*_, last) = fit(
            model, make_optimizer(model, config.optimizer), ((1.0, b) for b in same(setup)), loop, config.optimizer, 0
        )
        assert last.speed["teraflops_per_second"] > 0
    assert counted == ["force_eager"], "in the first batch alone"


def broken(batch):
    return batch | {"inputs": batch["inputs"] * float("nan")}


def test_an_update_without_a_finite_gradient_is_skipped_and_counted():
    def one_bad(setup):
        batch = masked_batch("vision", setup)
        return (broken(batch) if number == 1 else batch for number in count())

    model, steps, _ = train(one_bad, replace(LOOP, updates=4))
    assert [step.record["skipped"] for step in steps] == [0, 1, 1, 1]
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())
    assert steps[-1].record["loss"] > 0


def test_many_bad_updates_in_a_row_end_the_run_with_a_sentence():
    with pytest.raises(
        UserError, match=r"3 updates in a row, to update 2, had no finite gradient; lower optimizer\.rate"
    ):
        train(lambda setup: repeat(broken(masked_batch("vision", setup))), replace(LOOP, updates=9, patience=3))


def test_dropout_depends_on_the_number_of_the_batch_alone():
    block = small_block("text")
    setup, _ = small_setup("text", block)
    batch = masked_batch("text", setup)

    def among_other_draws(setup):
        while torch.rand(()) < 2:
            yield batch

    once, _, _ = train(lambda setup: repeat(batch), replace(LOOP, updates=2), "text", block)
    again, _, _ = train(among_other_draws, replace(LOOP, updates=2), "text", block)
    for one, other in zip(once.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)


def test_recomputing_blocks_changes_nothing():
    def run(recompute):
        setup, config = small_setup("vision")
        _, model = small_model("vision")
        model.student.trunk.recompute = recompute
        steps = fit(
            model, make_optimizer(model, config.optimizer), ((1.0, b) for b in same(setup)), LOOP, config.optimizer, 0
        )
        return [step.record["loss"] for step in steps]

    assert run(True) == run(False)


def test_half_precision_stays_close_and_keeps_weights_and_averages_whole():
    _, full_steps, _ = train(same, replace(LOOP, updates=20))
    half, half_steps, _ = train(same, replace(LOOP, updates=20, precision="bfloat16"))
    assert {parameter.dtype for parameter in half.parameters()} == {torch.float32}
    assert half_steps[-1].record["loss"] == pytest.approx(full_steps[-1].record["loss"], rel=0.1)
    assert half_steps[-1].record["loss"] != full_steps[-1].record["loss"]
