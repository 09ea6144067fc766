"""Mask samplers: pure functions of a keyed generator. True = hidden from the student, and predicted.

T tokens of a sample · p share of tokens that would be masked if spans did not overlap (reference, chapter 10)

Exact counts are floors of products in floating point, as in the reference: 196·(1 - 0.8) is 39, 100·(1 - 0.9) is 9.
"""

import math
from collections.abc import Sequence

import numpy as np


def spans(rng: np.random.Generator, tokens: int, probability: float, length: int, least: int = 1) -> np.ndarray:
    """Return a mask [T] bool made of runs of ``length`` tokens (reference 2.4; the last token is never masked).

    The number of runs is floor(p·T/length + u), u ~ U[0, 1), at least ``least``; starts are distinct, runs may overlap.
    """
    count = min(max(int(probability * tokens / length + rng.random()), least), max(tokens - 1, 0))
    room = length if tokens - length > count else max(tokens - count - 1, 1)
    starts = rng.choice(tokens - room, count, replace=False) if count else np.empty(0, dtype=int)
    mask = np.zeros(tokens + length, dtype=bool)
    mask[(starts[:, None] + np.arange(length)).ravel()] = True
    mask[tokens - 1 :] = False
    return mask[:tokens]


def equalise(masks: Sequence[np.ndarray], rngs: Sequence[np.random.Generator]) -> np.ndarray:
    """Stack masks [T] to [B, T] with equal counts: rows with more than the least lose random single tokens."""
    stacked = np.stack(masks)
    least = stacked.sum(axis=1).min()
    for row, rng in zip(stacked, rngs, strict=True):
        adjust_count(rng, row, least)
    return stacked


def adjust_count(rng: np.random.Generator, marked: np.ndarray, count: int) -> None:
    """Clear or set random single cells of ``marked``, in place, until exactly ``count`` are set."""
    surplus = int(np.count_nonzero(marked)) - count
    if surplus:
        cells = np.flatnonzero(marked if surplus > 0 else ~marked)
        marked.flat[rng.choice(cells, abs(surplus), replace=False)] = surplus < 0


def rectangles(rng: np.random.Generator, side: int, count: int, smallest: int, aspect: float = 0.3) -> np.ndarray:
    """Return a mask [side·side] bool of at most ``count`` patches, made of rectangles (BEiT; reference 3.4).

    ``smallest`` is the least area of a rectangle in patches, ``aspect`` its least ratio of height to width.
    """
    mask = np.zeros((side, side), dtype=bool)
    while (left := count - int(mask.sum())) > 0:
        if not place_rectangle(rng, mask, left, smallest, aspect):
            break
    return mask.ravel()


def place_rectangle(rng: np.random.Generator, mask: np.ndarray, left: int, smallest: int, aspect: float) -> bool:
    """Mask one rectangle with at least one new patch and at most ``left``; tell whether ten attempts found one."""
    side = len(mask)
    for _ in range(10):
        area = rng.uniform(min(smallest, left), max(smallest, left))
        ratio = np.exp(rng.uniform(np.log(aspect), -np.log(aspect)))
        height, width = round(float(np.sqrt(area * ratio))), round(float(np.sqrt(area / ratio)))
        if height >= side or width >= side:
            continue
        top, start = rng.integers(side - height + 1), rng.integers(side - width + 1)
        rectangle = mask[top : top + height, start : start + width]
        if 0 < rectangle.size - rectangle.sum() <= left:
            rectangle[:] = True
            return True
    return False


def token_spans(rng: np.random.Generator, tokens: int, probability: float, length: int) -> np.ndarray:
    """Return a mask [T] bool over a text: like ``spans``, but any token can be hit (reference 4.2)."""
    count = min(int(probability * tokens / length + rng.random()), tokens)
    starts = rng.choice(tokens, count, replace=False)
    mask = np.zeros(tokens + length, dtype=bool)
    mask[(starts[:, None] + np.arange(length)).ravel()] = True
    return mask[:tokens]


def block_spans(rng: np.random.Generator, tokens: int, share: float, adjust: float, length: int) -> np.ndarray:
    """Return a mask [T] bool with exactly floor(T·share) hidden tokens: runs of ``length``, then single ones (5.5.1).

    The number of runs is that of ``share`` + ``adjust``, without overlap; the adjustment to the exact count is random.
    """
    hidden = mark_blocks(rng, (tokens,), share + adjust, length)
    adjust_count(rng, hidden, int(tokens * share))
    return hidden


def square_blocks(rng: np.random.Generator, side: int, share: float, adjust: float, length: int) -> np.ndarray:
    """Return a mask [side·side] bool whose *visible* patches are squares of ``length``, then single ones (5.5.2).

    ``share`` is the hidden one: exactly floor(side²·(1 - share)) patches are visible. The number of squares is that of
    (1 - share) + ``adjust``, without overlap.
    """
    shown = 1 - share
    visible = mark_blocks(rng, (side, side), shown + adjust, length)
    adjust_count(rng, visible, int(side**2 * shown))
    return ~visible.ravel()


def random_tokens(rng: np.random.Generator, tokens: int, share: float) -> np.ndarray:
    """Return a mask [T] bool with exactly floor(T·(1 - share)) visible tokens, all sets equally likely (5.5.3)."""
    return rng.permutation(tokens) >= int(tokens * (1 - share))


def mark_blocks(rng: np.random.Generator, shape: tuple[int, ...], share: float, length: int) -> np.ndarray:
    """Return a grid of ``shape`` bool with blocks of ``length`` per axis, cut off at the border (reference 5.5).

    Their number is floor(cells·share / cells of a block); centres are uniform with replacement, so blocks may overlap.
    """
    axes = len(shape)
    count = int(math.prod(shape) * (share / length**axes))
    corners = [rng.integers(size, size=(count,) + (1,) * axes) for size in shape]
    block = np.indices((length,) * axes, sparse=True)
    marked = np.zeros([size + length - 1 for size in shape], dtype=bool)
    marked[tuple(corner + offset for corner, offset in zip(corners, block, strict=True))] = True
    before = length // 2
    return marked[tuple(slice(before, before + size) for size in shape)]
