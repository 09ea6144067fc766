"""Sums over processes: gradients in any buckets, with holes in any place, and the numbers that all must agree on."""

import os
import signal
from collections import deque
from contextlib import nullcontext
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from d2v_core.errors import Interrupted
from d2v_core.training.gradients import Gradients, cut
from d2v_core.training.ranks import ALONE, join, others_alive
from tests.ranks import on_ranks

SHAPES = [(5, 3), (7,), (2, 2, 2), (11,), (1,), (4, 4)]


@dataclass(frozen=True)
class Case:
    """Which of the parameters each rank's loss uses, in how large buckets."""

    used: tuple[tuple[int, ...], ...]
    bucket_bytes: int


ALL = tuple(range(len(SHAPES)))
CASES = [
    Case((ALL, ALL), 1),
    Case((ALL, ALL), 10**9),
    Case((ALL, (1, 3)), 60),
    Case(((0, 1, 2), (3, 4)), 60),
    Case(((), (5,)), 40),
    Case(((0,), (0,)), 200),
    Case(((), ()), 60),
]


def values(rank, number):
    return torch.randn(SHAPES[number], generator=torch.Generator().manual_seed(10 * rank + number))


def summed(case, ranks):
    """Return the gradients after two batches on every rank, the second of which is sent while it goes backward."""
    parameters = [nn.Parameter(torch.ones(shape)) for shape in SHAPES]
    gradients = Gradients(parameters, ranks, case.bucket_bytes)
    found = []
    for _ in range(2):
        for parameter in parameters:
            parameter.grad = None
        used = case.used[ranks.rank % len(case.used)]
        for last in (False, True):
            loss = sum(((parameters[n] * values(ranks.rank, n)).sum() for n in used), parameters[0].new_zeros(()))
            if loss.requires_grad and not last:
                loss.backward()
            with gradients.sending() if last else nullcontext():
                if loss.requires_grad and last:
                    loss.backward()
        gradients.add()
        found.append([None if p.grad is None else p.grad.tolist() for p in parameters])
    assert found[0] == found[1], "every update has the same bits"
    return found[0]


@pytest.mark.parametrize("size", [2, 3])
def test_gradients_are_summed_whatever_ranks_use_and_buckets_hold(size):
    answers = on_ranks(size, lambda _: [summed(case, join()) for case in CASES])
    for number, case in enumerate(CASES):
        for rank in range(size):
            assert isinstance(answers[rank], list), answers[rank]
            assert answers[rank][number] == answers[0][number], "all ranks have the same bits"
        for place, gradient in enumerate(answers[0][number]):
            users = [rank for rank in range(size) if place in case.used[rank % len(case.used)]]
            if users:
                torch.testing.assert_close(torch.tensor(gradient), sum(2 * values(rank, place) for rank in users))
            else:
                assert gradient is None


def test_buckets_hold_every_parameter_once_in_order():
    parameters = [nn.Parameter(torch.ones(shape)) for shape in SHAPES]
    for most in (1, 40, 60, 100, 10**9):
        buckets = cut(parameters, most)
        assert [id(p) for bucket in buckets for p in bucket] == [id(p) for p in parameters]
        assert all(len(bucket) == 1 or sum(p.nbytes for p in bucket) <= most for bucket in buckets)


def test_ranks_agree_on_flags_numbers_and_weights():
    def work(_):
        ranks = join()
        weights = torch.full((3, 2), float(ranks.rank)).T
        ranks.follow_first([weights])
        return (
            ranks.any(ranks.rank == 1),
            ranks.any(False),
            ranks.differ(7, 8),
            ranks.differ(7, ranks.rank),
            float(ranks.total(torch.tensor(float(ranks.rank)))),
            weights.sum().item(),
        )

    answers = on_ranks(3, work)
    assert [answers[rank] for rank in range(3)] == [(True, False, False, True, 3.0, 0.0)] * 3


def test_a_single_process_has_nothing_to_sum():
    parameter = nn.Parameter(torch.ones(3))
    gradients = Gradients([parameter], ALONE)
    with gradients.sending():
        parameter.sum().backward()
    gradients.add()
    assert parameter.grad.tolist() == [1.0] * 3
    assert not ALONE.differ(1, 2)
    assert ALONE.any(True)


def test_the_death_of_another_process_is_a_sentence():
    def work(rank):
        ranks = join()
        if rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        with pytest.raises(Interrupted, match="another process of this training is gone; run it again"):
            deque(iter(lambda: ranks.total(torch.ones(1000)), None))
        return "told"

    assert on_ranks(2, work) == {0: "told"}


def test_other_failures_keep_their_names():
    with pytest.raises(RuntimeError, match="size"), others_alive():
        torch.ones(2) @ torch.ones(3)
