"""What the reference does otherwise than we do, switched on for a comparison; each habit is named for what it does.

B samples · T tokens · D width
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from unittest.mock import patch

from torch import Tensor, nn

from d2v_core.modalities import speech, text
from d2v_core.model import data2vec

average_targets = data2vec.average_targets
embed = text.Local.forward


def place_zeroing_once(local: speech.Local, tokens: Tensor, padding: Tensor | None) -> Tensor:
    """Zero padded frames before the first positional convolution alone (version 1)."""
    return place_untouched(local, tokens if padding is None else tokens * (~padding).unsqueeze(-1), None)


def place_untouched(local: speech.Local, tokens: Tensor, padding: Tensor | None) -> Tensor:
    """Leave padded frames as they are before every positional convolution (version 2)."""
    positions = tokens
    for layer in local.positions:
        positions = layer(positions)
    return tokens + positions


def average_with_padding(results: list, each: tuple, final: tuple, padding: Tensor | None) -> Tensor:
    """Let padding take part in the statistics of targets over time (both versions; reference 9, point 11)."""
    return average_targets(results, each, final, None)


def embed_padding(local: text.Local, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor | None]:
    """Leave padded tokens as the embedding's norm makes them, not zero (version 2)."""
    x, padding = embed(local, inputs)
    if padding is None:
        return x, padding
    ids = inputs["inputs"]
    blank = local.norm(local.tokens(ids) + local.positions(padding * text.PAD))
    return blank.where(padding.unsqueeze(-1), x), padding


def scale_results(module: nn.Module, arguments: tuple, result: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """As a forward hook of a block: take its feed-forward result after the layer scale, not before it."""
    return result[0], result[1] * module.feedforward_scale


@dataclass(frozen=True)
class Habit:
    """A function of ours, and the reference's in its place."""

    owner: object
    attribute: str
    function: object


COUNT_PADDING = Habit(data2vec, "average_targets", average_with_padding)
HABITS = {
    "v1_audio": (COUNT_PADDING, Habit(speech.Local, "place", place_zeroing_once)),
    "v2_audio": (COUNT_PADDING, Habit(speech.Local, "place", place_untouched)),
    "v2_text": (COUNT_PADDING, Habit(text.Local, "forward", embed_padding)),
}


@contextmanager
def switched_on(habits: tuple[Habit, ...]) -> Iterator[None]:
    """Give the models the reference's habits inside the block."""
    with ExitStack() as stack:
        for habit in habits:
            stack.enter_context(patch.object(habit.owner, habit.attribute, habit.function))
        yield
