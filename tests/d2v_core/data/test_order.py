"""Every row once an epoch, within the budget, the same for the same key."""

from itertools import islice

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from d2v_core.data.order import epoch_batches, stream

lengths = st.lists(st.floats(0.1, 50), min_size=1, max_size=60).map(np.array)


@given(lengths, st.floats(1, 200), st.integers(0, 5), st.integers(0, 5))
def test_every_row_is_used_exactly_once_and_batches_keep_the_budget(lengths, budget, seed, epoch):
    batches = epoch_batches(lengths, budget, seed, epoch)
    assert sorted(np.concatenate(batches)) == list(range(len(lengths)))
    for rows in batches:
        assert len(rows) == 1 or len(rows) * lengths[rows].max() <= budget


@given(lengths, st.integers(0, 40))
def test_the_stream_goes_on_from_any_place(lengths, skip):
    whole = list(islice(stream(lengths, 60, seed=1), skip + 3))
    place = whole[skip]
    again = list(islice(stream(lengths, 60, 1, place.epoch, place.position), 3))
    for old, new in zip(whole[skip:], again, strict=True):
        assert (old.epoch, old.position) == (new.epoch, new.position)
        np.testing.assert_array_equal(old.rows, new.rows)


def test_epochs_and_seeds_differ():
    lengths = np.ones(100)
    first = np.concatenate(epoch_batches(lengths, 10, 0, 0))
    assert (first != np.concatenate(epoch_batches(lengths, 10, 0, 1))).any()
    assert (first != np.concatenate(epoch_batches(lengths, 10, 1, 0))).any()


def test_batches_hold_rows_of_similar_length():
    lengths = np.random.default_rng(0).uniform(1, 10, 1000)
    batches = epoch_batches(lengths, 100, 0, 0)
    padded = sum(len(rows) * lengths[rows].max() for rows in batches)
    assert lengths.sum() / padded > 0.85
