"""Letters of transcripts as numbers, and back by greedy decoding (reference 6.1)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from d2v_core.model.supervised import BLANK

WORD_END = "|"


def encode(transcript: str, letters: Sequence[str]) -> list[int]:
    """Return the numbers of a transcript's letters: spaces are ``|``, and one more closes the last word."""
    numbers = {letter: number for number, letter in enumerate(letters)}
    spelled = WORD_END.join(transcript.split()) + WORD_END
    return [numbers[letter] for letter in spelled if letter in numbers]


def pad(labels: Sequence[Sequence[int]]) -> Tensor:
    """Stack label sequences to [B, L] int64, padded with -1."""
    sequences = [torch.tensor(sequence, dtype=torch.int64) for sequence in labels]
    return torch.nn.utils.rnn.pad_sequence(sequences, batch_first=True, padding_value=-1)


def greedy(logits: Tensor, letters: Sequence[str]) -> str:
    """Return the transcript of logits [T, C]: best letter per token, repeats merged, blanks dropped."""
    best = torch.unique_consecutive(logits.argmax(dim=-1)).tolist()
    return "".join(letters[number] for number in best if number != BLANK).replace(WORD_END, " ").strip()
