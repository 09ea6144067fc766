"""The samplers' properties of reference, chapter 10."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from d2v_core.data.masks import (
    block_spans,
    equalise,
    mark_blocks,
    place_rectangle,
    random_tokens,
    rectangles,
    spans,
    square_blocks,
    token_spans,
)
from d2v_core.data.order import key

seeds = st.integers(0, 10**6)
shares = st.floats(0.01, 0.99)
adjusts = st.floats(0.0, 0.2)
SAMPLERS = {
    "spans": lambda rng: spans(rng, 200, 0.5, 5),
    "token_spans": lambda rng: token_spans(rng, 200, 0.35, 4),
    "rectangles": lambda rng: rectangles(rng, 14, 120, 16),
    "block_spans": lambda rng: block_spans(rng, 200, 0.5, 0.05, 5),
    "square_blocks": lambda rng: square_blocks(rng, 14, 0.8, 0.07, 3),
    "random_tokens": lambda rng: random_tokens(rng, 200, 0.48),
}


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


def test_rectangles_match_the_beit_generator():
    counts = [int(rectangles(key(seed), 14, 120, 16).sum()) for seed in range(1000)]
    assert max(counts) <= 120
    assert np.mean(counts) == pytest.approx(119.5, abs=0.2)
    assert min(counts) >= 100
    assert np.mean([rectangles(key(seed), 14, 75, 16).sum() for seed in range(500)]) == pytest.approx(74.5, abs=0.3)


@given(st.integers(2, 16), st.floats(0.1, 0.9), st.integers(1, 16), st.integers(0, 10**6))
def test_rectangles_stay_within_their_count(side, share, smallest, seed):
    count = int(share * side**2)
    assert rectangles(key(seed), side, count, smallest).sum() <= count


def test_token_spans_hide_the_stated_share_and_reach_every_token():
    masks = np.stack([token_spans(key(seed), 100, 0.15, 1) for seed in range(3000)])
    assert set(masks.sum(axis=1)) == {15}
    assert masks.any(axis=0).all()
    odd = [token_spans(key(seed), 50, 0.15, 1).sum() for seed in range(2000)]
    assert set(odd) == {7, 8}
    assert np.mean(odd) == pytest.approx(7.5, abs=0.05)
    assert np.mean([token_spans(key(s), 512, 0.35, 4).mean() for s in range(500)]) == pytest.approx(0.306, abs=0.01)


@pytest.mark.parametrize("draw", SAMPLERS.values(), ids=SAMPLERS)
@given(seed=seeds, row=st.integers(0, 10**6), view=st.integers(0, 15))
def test_the_same_key_gives_the_same_mask_and_another_seed_row_or_view_another(draw, seed, row, view):
    mask = draw(key(seed, row, view))
    assert mask.dtype == bool
    assert (mask == draw(key(seed, row, view))).all()
    for other in ((seed + 1, row, view), (seed, row + 1, view), (seed, row, view + 1)):
        assert (mask != draw(key(*other))).any()


@given(st.integers(1, 400), shares, seeds)
def test_spans_start_as_often_as_stated(tokens, probability, seed):
    """With a length of 1 every start is one masked token."""
    expected, most = int(probability * tokens), max(tokens - 1, 0)
    counts = {int(spans(key(seed, row), tokens, probability, 1).sum()) for row in range(5)}
    assert counts <= {min(max(expected + more, 1), most) for more in (0, 1)}
    counts = {int(spans(key(seed, row), tokens, 0.001, 1, least=0).sum()) for row in range(5)}
    assert counts <= {0, 1}


def test_the_mean_number_of_starts_is_not_rounded():
    counts = [spans(key(seed), 77, 0.5, 1).sum() for seed in range(2000)]
    assert set(counts) == {38, 39}
    assert np.mean(counts) == pytest.approx(38.5, abs=5 * 0.5 / np.sqrt(2000))


@given(st.integers(0, 30), st.floats(0.01, 0.99), st.integers(1, 40), seeds)
def test_token_spans_take_any_size(tokens, probability, length, seed):
    mask = token_spans(key(seed), tokens, probability, length)
    assert mask.shape == (tokens,)
    assert mask.sum() <= (int(probability * tokens / length) + 1) * length


@given(seeds)
def test_equal_rows_stay_as_they_are(seed):
    rngs = [key(seed, view) for view in range(4)]
    drawn = [block_spans(rng, 99, 0.5, 0.05, 5) for rng in rngs]
    assert (equalise(drawn, rngs) == np.stack(drawn)).all()


@given(st.integers(20, 120), seeds)
def test_a_rectangle_is_whole_and_as_large_as_asked_for(left, seed):
    mask = np.zeros((14, 14), dtype=bool)
    found = place_rectangle(key(seed), mask, left, 16, 0.3)
    assert found == mask.any()
    if found:
        rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
        assert mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
        assert max(len(rows), len(columns)) < 14
        assert 12 <= mask.sum() <= left


@given(st.integers(1, 400), shares, adjusts, st.integers(1, 30), seeds)
def test_block_spans_hide_exactly_their_share_in_every_row_and_view(tokens, share, adjust, length, seed):
    keys = [key(seed, row, view) for row in (1, 2) for view in (1, 2)]
    masks = np.stack([block_spans(rng, tokens, share, adjust, length) for rng in keys])
    assert masks.shape == (4, tokens)
    assert set(masks.sum(axis=1)) == {int(tokens * share)}


@given(st.integers(1, 16), shares, adjusts, st.integers(1, 8), seeds)
def test_square_blocks_show_exactly_the_rest_in_every_row_and_view(side, share, adjust, length, seed):
    keys = [key(seed, row, view) for row in (1, 2) for view in (1, 2)]
    masks = np.stack([square_blocks(rng, side, share, adjust, length) for rng in keys])
    assert masks.shape == (4, side**2)
    assert set((~masks).sum(axis=1)) == {int(side**2 * (1 - share))}


@given(st.integers(1, 600), shares, seeds)
def test_random_tokens_show_exactly_the_rest(tokens, share, seed):
    mask = random_tokens(key(seed), tokens, share)
    assert mask.shape == (tokens,)
    assert (~mask).sum() == int(tokens * (1 - share))


PUBLISHED = [
    (lambda rng: block_spans(rng, 999, 0.5, 0.05, 5), 499),
    (lambda rng: block_spans(rng, 999, 0.55, 0.1, 5), 549),
    (lambda rng: square_blocks(rng, 14, 0.8, 0.07, 3), 196 - 39),
    (lambda rng: square_blocks(rng, 14, 0.75, 0.1, 3), 196 - 49),
    (lambda rng: square_blocks(rng, 16, 0.75, 0.1, 3), 256 - 64),
    (lambda rng: random_tokens(rng, 512, 0.48), 512 - 266),
    (lambda rng: random_tokens(rng, 512, 0.5), 256),
]


@pytest.mark.parametrize(("draw", "hidden"), PUBLISHED)
def test_the_published_sizes_have_the_published_counts(draw, hidden):
    assert {int(draw(key(seed)).sum()) for seed in range(50)} == {hidden}


@given(st.integers(1, 300), shares, st.integers(1, 20), seeds)
def test_blocks_in_a_row_are_runs_cut_off_at_the_ends_alone(tokens, share, length, seed):
    marked = mark_blocks(key(seed), (tokens,), share, length)
    assert marked.shape == (tokens,)
    assert (marked == rebuilt(marked[None], (1, length))[0]).all()
    assert marked.sum() <= int(tokens * (share / length)) * length
    within = runs(marked)[bool(len(marked) and marked[0]) : -1 if marked[-1] else None]
    assert all(run >= length for run in within)


@given(st.integers(1, 16), shares, st.integers(1, 6), seeds)
def test_every_cell_of_a_grid_belongs_to_a_square_cut_off_at_the_border(side, share, length, seed):
    marked = mark_blocks(key(seed), (side, side), share, length)
    assert marked.shape == (side, side)
    assert (marked == rebuilt(marked, (length, length))).all()
    assert marked.sum() <= int(side**2 * (share / length**2)) * length**2


def rebuilt(marked: np.ndarray, block: tuple[int, int]) -> np.ndarray:
    """Return the union of all blocks around a cell of the grid [H, W] that lie in ``marked``, as far as it reaches."""
    result = np.zeros_like(marked)
    for row, column in np.argwhere(marked):
        top, left = row - block[0] // 2, column - block[1] // 2
        here = np.s_[max(top, 0) : top + block[0], max(left, 0) : left + block[1]]
        if marked[here].all():
            result[here] = True
    return result


CONFIGS = [((999,), 0.55, 5, 0.42), ((999,), 0.65, 5, 0.475), ((14, 14), 0.27, 3, 0.19), ((14, 14), 0.35, 3, 0.255)]


@pytest.mark.parametrize(("shape", "share", "length", "published"), CONFIGS)
def test_blocks_cover_what_independent_centres_cover(shape, share, length, published):
    """A cell that k centres reach is covered with 1 - (1 - k/cells)^count; the bar is five standard errors."""
    cells = math.prod(shape)
    reach = [np.convolve(np.ones(size), np.ones(length))[length // 2 :][:size] for size in shape]
    centres = math.prod(np.ix_(*reach)) / cells
    covered = 1 - (1 - centres) ** int(cells * (share / length ** len(shape)))
    drawn = np.array([mark_blocks(key(seed), shape, share, length).mean() for seed in range(1000)])
    assert drawn.mean() == pytest.approx(covered.mean(), abs=5 * drawn.std() / np.sqrt(1000))
    assert drawn.mean() == pytest.approx(published, abs=0.01)


def test_too_few_tokens_for_a_block_still_give_the_exact_count():
    assert not mark_blocks(key(0), (8,), 0.5, 5).any()
    assert block_spans(key(0), 8, 0.5, 0.05, 5).sum() == 4


@given(st.integers(2, 16), shares, adjusts, st.integers(1, 4), seeds)
def test_squares_are_the_complement_of_hiding_the_visible_share(side, share, adjust, length, seed):
    """The inverse mask of R shows what the plain sampler of 1 - R draws: only exact counts are added."""
    visible = ~square_blocks(key(seed), side, share, adjust, length).reshape(side, side)
    drawn = mark_blocks(key(seed), (side, side), 1 - share + adjust, length)
    changed = visible != drawn
    assert changed.sum() == abs(int(drawn.sum()) - int(side**2 * (1 - share)))


@given(seeds)
def test_random_tokens_reach_every_token(seed):
    masks = np.stack([random_tokens(key(seed, view), 40, 0.5) for view in range(60)])
    assert masks.any(axis=0).all()
    assert (~masks).any(axis=0).all()
