"""The distributions of all samplers against 2,000 draws of the public reference implementation.

Bars. Both samples are finite, so the difference of two means has the standard error √(2·variance / draws), with the
variance measured over our draws (over batches where rows are equalised together). Every single number, 6,557 of
them, must agree within FAR standard errors. Every family of numbers (a histogram, the places of a mask) must also agree
as a whole: its mean square in standard errors is that of a χ² variable whose degrees of freedom follow from the
correlations of the family (Satterthwaite), and must not exceed CLOSE standard deviations of it (Wilson and Hilferty).
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import label

from d2v_core.data.masks import (
    block_spans,
    equalise,
    mark_blocks,
    random_tokens,
    rectangles,
    spans,
    square_blocks,
    token_spans,
)
from d2v_core.data.order import key
from tests.d2v_core.blocks import small_block, small_setup

GOLDEN = Path(__file__).parents[4] / "shared" / "golden" / "masks"
pytestmark = pytest.mark.skipif(not GOLDEN.is_dir(), reason="the golden numbers are not beside this checkout")
DRAWS = 2000
FAR = 5.0  # 6e-7 of a normal variable lies beyond
CLOSE = 4.0  # 3e-5 of it lies above
NOTICED = r"standard errors|mean square"
RARE = 50  # events in both samples together, below which bins of a histogram are joined


def record(file: str, *names: str) -> dict:
    found = json.loads((GOLDEN / f"{file}.json").read_text())
    for name in names:
        found = found[name]
    return found


def draw(sampler, *arguments, draws: int = DRAWS) -> np.ndarray:
    return np.stack([sampler(key(5, row), *arguments) for row in range(draws)])


def agree(ours: np.ndarray, reference: np.ndarray, what: str) -> None:
    """Compare means [K] of independent draws ``ours`` [N, K] with those of as many draws of the reference."""
    ours, reference = ours.reshape(len(ours), -1).astype(float), np.ravel(reference)
    difference, variance = ours.mean(axis=0) - reference, ours.var(axis=0)
    varies = variance > 1e-12
    np.testing.assert_allclose(difference[~varies], 0, atol=1e-9, err_msg=what)
    if not varies.any():
        return
    deviation = difference[varies] / np.sqrt(2 * variance[varies] / len(ours))
    worst = np.abs(deviation).max()
    assert worst < FAR, f"{what}: {worst:.1f} standard errors at {np.abs(deviation).argmax()}"
    freedom = varies.sum() ** 2 / (np.corrcoef(ours[:, varies], rowvar=False) ** 2).sum()
    bar = (1 - 2 / (9 * freedom) + CLOSE * np.sqrt(2 / (9 * freedom))) ** 3
    assert (deviation**2).mean() < bar, f"{what}: mean square {(deviation**2).mean():.2f} above {bar:.2f}"


def agree_moments(ours: np.ndarray, reference: dict, what: str, scale: float = 1.0, units=np.asarray) -> None:
    """Compare mean and standard deviation of ``ours`` [N]."""
    mean, std = reference["mean"] * scale, reference["std"] * scale
    agree(units(np.stack([ours, (ours - mean) ** 2], axis=1)), np.array([mean, std**2]), what)


def agree_histogram(ours: np.ndarray, reference: dict, what: str, units=np.asarray) -> None:
    """Compare events per draw in each bin, ``ours`` [N, bins], after joining each rare bin to those before it."""
    expected = np.zeros(ours.shape[1])
    for place, events in reference.items():
        expected[int(place)] = events
    both, starts, events = ours.sum(axis=0) + expected, [0], 0
    for place, new in enumerate(both):
        if events >= RARE and both[place:].sum() >= RARE:
            starts.append(place)
            events = 0
        events += new
    agree(units(np.add.reduceat(ours, starts, axis=1)), np.add.reduceat(expected, starts) / DRAWS, what)


def run_lengths(masks: np.ndarray, cap: int) -> np.ndarray:
    """Count the runs of each length 0..cap (the last also counts longer ones) per row of ``masks`` [N, T]."""
    edges = np.diff(masks.astype(np.int8), axis=1, prepend=0, append=0)
    rows, starts = np.nonzero(edges == 1)
    lengths = np.minimum(np.nonzero(edges == -1)[1] - starts, cap)
    return np.bincount(rows * (cap + 1) + lengths, minlength=len(masks) * (cap + 1)).reshape(len(masks), cap + 1)


def agree_sequences(masks: np.ndarray, reference: dict, batch: int = 1) -> None:
    """Compare everything that is known of masks [N, T], whose rows depend on each other within a batch."""

    def units(values: np.ndarray) -> np.ndarray:
        return values.reshape(len(values) // batch, batch, -1).mean(axis=1)

    assert masks.shape[0] == DRAWS
    agree_moments(masks.sum(axis=1), reference["masked_count"], "count", units=units)
    runs = run_lengths(masks, 60)
    agree_moments(runs.sum(axis=1), reference["masked_runs_per_row"], "runs", units=units)
    agree_histogram(runs, reference["masked_run_length_histogram"], "masked runs", units)
    if "unmasked_run_length_histogram" in reference:
        agree_histogram(run_lengths(~masks, 60), reference["unmasked_run_length_histogram"], "visible runs", units)
        pairs = (masks[:, 1:] & masks[:, :-1]).mean(axis=1)
        agree(units(pairs), reference["adjacent_both_masked_fraction"], "pairs")
        agree(units(masks), reference["marginal_mask_probability_by_position"], "places")


def components(grids: np.ndarray) -> np.ndarray:
    """Count the connected parts of each grid [N, S, S], by edges."""
    apart = np.zeros((3, 3, 3), dtype=int)
    apart[1] = [[0, 1, 0], [1, 1, 1], [0, 1, 0]]
    last = label(grids, apart)[0].reshape(len(grids), -1).max(axis=1)
    return np.diff(np.maximum.accumulate(last), prepend=0)


def agree_grids(masks: np.ndarray, reference: dict) -> None:
    """Compare everything that is known of masks [N, S·S]."""
    side = reference_side(reference)
    grids, counts = masks.reshape(len(masks), side, side), masks.sum(axis=1)
    agree_moments(counts, reference["masked_count"], "count")
    agree_histogram(counts[:, None] == np.arange(side**2 + 1), reference["masked_count"]["histogram"], "counts")
    agree(grids, reference["marginal_mask_probability"], "places")
    agree_moments(components(~grids), reference["visible_components"], "visible components")
    if "masked_components" in reference:
        agree_moments(components(grids), reference["masked_components"], "masked components")
        beside, below = grids[:, :, 1:] & grids[:, :, :-1], grids[:, 1:] & grids[:, :-1]
        agree(beside.mean(axis=(1, 2)), reference["horizontal_pairs_both_masked"], "pairs in rows")
        agree(below.mean(axis=(1, 2)), reference["vertical_pairs_both_masked"], "pairs in columns")
        runs = run_lengths(grids.reshape(-1, side), side).reshape(len(masks), side, -1).sum(axis=1)
        agree_histogram(runs, reference["horizontal_masked_run_length_histogram"], "runs")


def reference_side(reference: dict) -> int:
    return len(reference["marginal_mask_probability"])


def test_spans_of_one_row():
    agree_sequences(draw(spans, 500, 0.65, 10), record("v1_audio_spans", "single_rows"))


def test_spans_of_equalised_batches():
    batches = []
    for batch in range(DRAWS // 16):
        rngs = [key(6, batch, row) for row in range(16)]
        batches.append(equalise([spans(rng, 500, 0.65, 10) for rng in rngs], rngs))
    agree_sequences(np.concatenate(batches), record("v1_audio_spans", "batches_of_16"), batch=16)


@pytest.mark.parametrize("tokens", [500, 400, 300, 200])
def test_spans_of_padded_rows_are_those_of_their_valid_length(tokens):
    shares = draw(spans, tokens, 0.65, 10, draws=500).mean(axis=1)
    agree_moments(shares, record("v1_audio_spans", "padded_no_equalisation", "rows", str(tokens)), "share")


@pytest.mark.parametrize(("name", "count"), [("num120_min16", 120), ("num75_min16_config_default", 75)])
def test_rectangles(name, count):
    agree_grids(draw(rectangles, 14, count, 16), record("v1_vision_blocks", name))


@pytest.mark.parametrize("name", ["bert_15pct", "released_config_35pct_span4"])
def test_masked_pieces_and_what_they_become(name):
    reference, tokens = record("v1_text_tokens", name), 512
    block = small_block("text")
    block["table"] |= {"vocabulary": 50265, "tokens": tokens}
    block["model"]["mask"] |= {
        "probability": reference["mask_prob"],
        "length": reference["mask_multiple_length"],
        "random": reference["random_token_prob"],
        "keep": reference["leave_unmasked_prob"],
    }
    setup, _ = small_setup("text", block)
    ids = torch.from_numpy(np.random.default_rng(0).integers(4, 50264, (DRAWS, tokens)))
    result = setup.modality.mask([key(5, row) for row in range(DRAWS)], {"inputs": ids}, setup.config)
    chosen = draw(token_spans, tokens, reference["mask_prob"], reference["mask_multiple_length"])
    replaced, same = result["mask"].numpy(), (result["corrupted"] == ids).numpy()
    assert not (~chosen & ~same).any()
    agree_sequences(chosen, reference["selected"])
    agree_moments(replaced.mean(axis=1), reference["fraction_replaced_by_mask"], "replaced by <mask>")
    agree_moments((~same & ~replaced).mean(axis=1), reference["fraction_replaced_by_random"], "replaced at random")
    agree_moments((chosen & same).mean(axis=1), reference["fraction_selected_but_kept"], "kept")


@pytest.mark.parametrize("name", ["base_audio", "large_audio"])
def test_runs_in_one_dimension(name):
    reference = record("v2_audio_blocks", name)
    share, adjust, length = (reference[part] for part in ("mask_prob", "mask_prob_adjust", "mask_length"))
    agree_sequences(draw(block_spans, 500, share, adjust, length), reference)
    agree_sequences(draw(mark_blocks, (500,), share + adjust, length), reference["before_equalisation"])


@pytest.mark.parametrize("name", ["base_image", "large_image", "huge14_image"])
def test_squares_in_two_dimensions(name):
    reference = record("v2_image_blocks", name)
    side = reference_side(reference)
    share, adjust, length = (reference[part] for part in ("mask_prob", "mask_prob_adjust", "mask_length"))
    agree_grids(draw(square_blocks, side, share, adjust, length), reference)
    visible = draw(mark_blocks, (side, side), 1 - share + adjust, length)
    agree_grids(~visible.reshape(DRAWS, -1), reference["before_equalisation"])


@pytest.mark.parametrize("name", ["base_text", "large_text"])
def test_random_tokens(name):
    reference = record("v2_text_random", name)
    agree_sequences(draw(random_tokens, 512, reference["mask_prob"]), reference)


def test_the_bars_are_tight_enough_to_notice_small_mistakes():
    reference = record("v2_audio_blocks", "base_audio")
    shifted = np.roll(draw(block_spans, 500, 0.5, 0.05, 5), 1, axis=1)
    one_less = draw(mark_blocks, (500,), 0.54, 5)
    for wrong, known in ((shifted, reference), (one_less, reference["before_equalisation"])):
        with pytest.raises(AssertionError, match=NOTICED):
            agree_sequences(wrong, known)
    with pytest.raises(AssertionError, match=NOTICED):
        agree_grids(draw(rectangles, 14, 120, 16, 0.35), record("v1_vision_blocks", "num120_min16"))
    with pytest.raises(AssertionError, match=NOTICED):
        agree_sequences(draw(spans, 500, 0.66, 10), record("v1_audio_spans", "single_rows"))
