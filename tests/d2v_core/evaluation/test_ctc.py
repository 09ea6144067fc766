"""Letters there and back."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from d2v_core.evaluation.ctc import encode, greedy, pad

LETTERS = ["<s>", "<pad>", "</s>", "<unk>", "|", *"ABCDEFGHIJKLMNOPQRSTUVWXYZ'"]


def frames(numbers: list[int]) -> torch.Tensor:
    """Return logits [T, C] of an alignment: every letter twice, a blank between letters."""
    alignment = [part for number in numbers for part in (number, number, 0)]
    return torch.nn.functional.one_hot(torch.tensor(alignment, dtype=torch.int64), len(LETTERS)).float()


@given(st.lists(st.text("ABC'", min_size=1, max_size=5), min_size=1, max_size=4))
def test_what_is_spelled_is_read(words):
    transcript = " ".join(words)
    assert greedy(frames(encode(transcript, LETTERS)), LETTERS) == transcript


def test_a_transcript_ends_its_last_word_and_skips_unknown_letters():
    assert encode("AÉ B", LETTERS) == [5, 4, 6, 4]
    assert pad([[5, 4], [6]]).tolist() == [[5, 4], [6, -1]]


def test_only_blanks_say_nothing():
    assert greedy(torch.eye(len(LETTERS))[:1].repeat(5, 1), LETTERS) == ""
