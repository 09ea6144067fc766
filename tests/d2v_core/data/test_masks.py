"""The samplers' properties of reference, chapter 10."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from d2v_core.data.masks import blocks, equalise, spans, token_spans
from d2v_core.data.order import key


def runs(mask: np.ndarray) -> list[int]:
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(int), [0]])))
    return list(edges[1::2] - edges[::2])


@given(st.integers(1, 400), st.floats(0.01, 0.9), st.integers(1, 20), st.integers(0, 10**6))
def test_spans_never_crash_and_never_hide_the_last_token(tokens, probability, length, seed):
    mask = spans(key(seed), tokens, probability, length)
    assert mask.shape == (tokens,)
    assert mask.dtype == bool
    assert not mask[-1]
    assert mask.any() or tokens == 1


@given(st.integers(60, 400), st.integers(1, 10), st.integers(0, 10**6))
def test_spans_are_runs_of_at_least_their_length(tokens, length, seed):
    mask = spans(key(seed), tokens, 0.5, length)
    assert min(runs(mask)) >= length
    assert mask.sum() <= (int(0.5 * tokens / length) + 1) * length


@pytest.mark.parametrize(("tokens", "share"), [(499, 0.491), (99, 0.50)])
def test_spans_cover_as_much_as_the_reference(tokens, share):
    covered = np.mean([spans(key(seed), tokens, 0.65, 10).mean() for seed in range(2000)])
    assert covered == pytest.approx(share, abs=0.01)


@given(st.integers(1, 8), st.integers(30, 200), st.integers(0, 10**6))
def test_equalised_rows_have_the_least_count_and_only_lose_tokens(rows, tokens, seed):
    rngs = [key(seed, row) for row in range(rows)]
    drawn = [spans(rng, tokens, 0.65, 10) for rng in rngs]
    equal = equalise(drawn, rngs)
    assert set(equal.sum(axis=1)) == {min(mask.sum() for mask in drawn)}
    assert not (equal & ~np.stack(drawn)).any()


def test_blocks_match_the_beit_generator():
    counts = [int(blocks(key(seed), 14, 120, 16).sum()) for seed in range(1000)]
    assert max(counts) <= 120
    assert np.mean(counts) == pytest.approx(119.5, abs=0.2)
    assert min(counts) >= 100
    assert np.mean([blocks(key(seed), 14, 75, 16).sum() for seed in range(500)]) == pytest.approx(74.5, abs=0.3)


@given(st.integers(2, 16), st.floats(0.1, 0.9), st.integers(1, 16), st.integers(0, 10**6))
def test_blocks_stay_within_their_count(side, share, smallest, seed):
    count = int(share * side**2)
    assert blocks(key(seed), side, count, smallest).sum() <= count


def test_token_spans_hide_the_stated_share_and_reach_every_token():
    masks = np.stack([token_spans(key(seed), 100, 0.15, 1) for seed in range(3000)])
    assert set(masks.sum(axis=1)) == {15}
    assert masks.any(axis=0).all()
    odd = [token_spans(key(seed), 50, 0.15, 1).sum() for seed in range(2000)]
    assert set(odd) == {7, 8}
    assert np.mean(odd) == pytest.approx(7.5, abs=0.05)
    assert np.mean([token_spans(key(s), 512, 0.35, 4).mean() for s in range(500)]) == pytest.approx(0.306, abs=0.01)


def test_the_same_key_gives_the_same_mask_and_another_key_another():
    assert (spans(key(1, 2, 3), 200, 0.5, 5) == spans(key(1, 2, 3), 200, 0.5, 5)).all()
    assert (spans(key(1, 2, 3), 200, 0.5, 5) != spans(key(1, 2, 4), 200, 0.5, 5)).any()
