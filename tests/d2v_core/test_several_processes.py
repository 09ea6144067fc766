"""Training on several processes is the training of one, with any number of them before and after a restart."""

from dataclasses import replace

import pytest
import torch

from d2v_core.errors import UserError
from d2v_core.pretraining import pretrain
from d2v_core.training.ranks import join
from tests.d2v_core.blocks import MODALITIES, small_block, small_setup
from tests.d2v_core.test_pretraining import BATCH, make_table
from tests.nightly import NIGHTLY
from tests.ranks import on_ranks

CPU = torch.device("cpu")


def configure(name, version, layer_drop=0.5):
    block = small_block(name, version)
    block["model"]["trunk"] |= {"layer_drop": layer_drop, "depth": 3}
    setup, config = small_setup(name, block)
    loop = replace(config.loop, updates=6, accumulate=4, log_every=1, save_every=2)
    return setup, replace(config, batch=BATCH[name], loop=loop)


def trace(setup, config, table, state, stop_after=None):
    """Train as the process that this one is; return the losses up to the last checkpoint, and the last weights."""
    model, steps = pretrain(setup, config, table, 0, state, CPU, join())
    losses = []
    for step in steps:
        losses += [step.record["loss"]] if step.record else []
        if step.update == stop_after:
            losses = losses[:-1]
            break
    return losses, [parameter.tolist() for parameter in model.parameters()]


CASES = [("speech", 1), ("vision", 2), ("text", 1)]
if NIGHTLY:
    CASES = [(name, version) for name in MODALITIES for version in (1, 2)]


@pytest.mark.parametrize(("name", "version"), CASES)
def test_whatever_their_number_and_whenever_it_changes_the_losses_are_those_of_one(tmp_path, name, version):
    setup, config = configure(name, version)
    table = make_table(tmp_path / "table", name, setup)
    alone, weights = trace(setup, config, table, tmp_path / "alone")
    found = []
    for number, size in enumerate((2, 4, 1)):
        part = on_ranks(size, lambda _, n=number: trace(setup, config, table, tmp_path / "state", (3, 5, None)[n]))
        assert all(isinstance(part[rank], tuple) for rank in range(size)), part
        assert all(part[rank][1] == part[0][1] for rank in range(size)), "all ranks have the same bits"
        assert all(part[rank][0] == [] for rank in range(1, size)), "the first one writes"
        found += part[0][0]
    assert found == pytest.approx(alone, rel=1e-6)
    for one, other in zip(part[0][1], weights, strict=True):
        torch.testing.assert_close(torch.tensor(one), torch.tensor(other), atol=1e-4, rtol=0)


def test_a_restart_with_the_same_number_ends_in_the_same_bits(tmp_path):
    setup, config = configure("speech", 1)
    table = make_table(tmp_path / "table", "speech", setup)
    whole = on_ranks(2, lambda _: trace(setup, config, table, tmp_path / "whole"))
    on_ranks(2, lambda _: trace(setup, config, table, tmp_path / "halves", 3))
    rest = on_ranks(2, lambda _: trace(setup, config, table, tmp_path / "halves"))
    assert rest[0] == (whole[0][0][2:], whole[0][1])


def test_hosts_without_common_checkpoints_are_refused(tmp_path):
    setup, config = configure("vision", 2)
    table = make_table(tmp_path / "table", "vision", setup)
    trace(setup, config, table, tmp_path / "0" / "state", 3)

    def work(rank):
        with pytest.raises(UserError, match=r"the processes disagree about .*state: all hosts need the same params"):
            trace(setup, config, table, tmp_path / f"{rank}" / "state")

    assert on_ranks(2, work) == {0: None, 1: None}


def test_processes_start_from_the_weights_of_the_first(tmp_path):
    setup, config = configure("vision", 1)
    table = make_table(tmp_path / "table", "vision", setup)

    def work(rank):
        model, steps = pretrain(setup, config, table, 0, tmp_path / "state", CPU, join())
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(rank)
        next(steps)
        return [parameter.tolist() for parameter in model.parameters()]

    answers = on_ranks(2, work)
    assert answers[0] == answers[1]
