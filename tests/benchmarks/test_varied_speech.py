"""Varied copies of recordings: what they change, what they keep, and that both arms get the same."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.altered_speech import FRAME, filtered
from benchmarks.speakers import Copied, speaker
from benchmarks.varied_speech import SPEEDS, centred, varied, whole

RATE = 8000  # Hz


class Digits:
    """As much of a table as copies are made from."""

    folder, classes = Path("digits"), ["one", "two"]

    def __init__(self) -> None:
        self.rows = [{"id": f"{label}_jackson_0", "audio": whole(hum(0.4)), "label": label} for label in (0, 1, 0)]

    def __getitem__(self, row: int) -> dict:
        return self.rows[row]


def hum(seconds: float = 0.5, pitch: float = 200.0) -> np.ndarray:
    return np.sin(2 * np.pi * pitch * np.arange(int(seconds * RATE)) / RATE)


def test_a_copy_is_faster_or_slower_and_the_same_each_time():
    wave = hum()
    copies = [varied(wave, np.random.default_rng(number)) for number in range(20)]
    speeds = [len(wave) / len(copy) for copy in copies]
    assert min(speeds) < 1 < max(speeds)
    assert SPEEDS[0] - 0.01 < min(speeds)
    assert max(speeds) < SPEEDS[1] + 0.01
    assert np.array_equal(copies[3], varied(wave, np.random.default_rng(3)))


@pytest.mark.parametrize("copies", [0, 3])
def test_copies_are_of_the_chosen_rows_alone_and_keep_their_labels(copies):
    table, rows = Digits(), np.array([1, 2])
    learnt, again = Copied(table, rows, copies), Copied(table, rows, copies)
    assert learnt.column("label") == [1, 0] * (1 + copies)
    assert learnt[0] is table[1]
    assert list(learnt.lengths("audio")) == [len(row["audio"]) for row in again.rows]
    assert all(np.array_equal(one["audio"], two["audio"]) for one, two in zip(learnt.rows, again.rows, strict=True))
    assert len({row["audio"].tobytes() for row in learnt.rows}) == 1 + 2 * copies  # both rows hum alike
    assert {speaker(row["id"]) for row in learnt.rows} == {"jackson"}


def test_centred_and_whole_undo_level_and_offset():
    loud = whole(0.1 * hum() + 0.02)
    assert np.abs(loud.astype(int)).max() == 32767
    assert centred(loud).mean() == pytest.approx(0, abs=1e-9)
    assert centred(loud).std() == pytest.approx(1)


def test_a_filter_takes_away_what_it_should_and_nothing_else():
    low, high = hum(pitch=300), hum(pitch=3600)
    below = (np.linspace(0, RATE / 2, FRAME // 2 + 1) < 3200).astype(float)
    assert np.abs(filtered(low + high, below) - low)[300:-300].max() < 0.05
