"""The beam search finds what trying every alignment of a small lattice finds, and prunes in ways that can be told."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from d2v_core.evaluation import ctc
from d2v_core.evaluation.beam import BeamConfig, beam_search, log_softmax
from d2v_core.evaluation.fusion import FusionWeights, LetterFusion, WordFusion
from d2v_core.evaluation.kneser_ney import train

LETTERS = ["<s>", "|", "A", "B"]
WORDS = ["A", "AB", "BA", "BB"]
SENTENCES = ["A BA", "AB", "BA A A", "BB AB", "A", "AB BA"]
EXACT = BeamConfig(size=10**6, recombine=False)
WORD_MODEL = train([sentence.split() for sentence in SENTENCES], 3)
LETTER_MODEL = train([[*"|".join(sentence.split()), "|"] for sentence in SENTENCES], 4)
lattices = st.tuples(st.integers(1, 5), st.integers(0, 2**32 - 1))
scores = st.sampled_from([-1.5, 0.0, 0.7])
weights = st.builds(
    FusionWeights,
    lm_weight=st.sampled_from([0.0, 0.8, 2.0]),
    word_score=scores,
    silence_weight=scores,
    unknown_score=st.sampled_from([None, -2.0]),
)


def draw(frames: int, seed: int, spread: float = 2.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, spread, (frames, len(LETTERS)))


def sounds(logits: np.ndarray, combine=np.logaddexp) -> dict[tuple[int, ...], float]:
    """Return the score of every label sequence, from all alignments."""
    frames = log_softmax(logits)
    found = {}
    for alignment in itertools.product(range(len(LETTERS)), repeat=len(frames)):
        labels = tuple(label for label, _ in itertools.groupby(alignment) if label != 0)
        score = sum(frames[frame, label] for frame, label in enumerate(alignment))
        found[labels] = combine(found.get(labels, -math.inf), score)
    return found


def split(labels: tuple[int, ...]) -> tuple[list[str], int]:
    """Return the words of a label sequence and how many ``|`` it has."""
    text = "".join(LETTERS[label] for label in labels)
    return [word for word in text.split("|") if word], text.count("|")


def word_score(labels: tuple[int, ...], chosen: FusionWeights, model=WORD_MODEL) -> float:
    words, silences = split(labels)
    total = chosen.word_score * len(words) + chosen.silence_weight * silences
    for word in words:
        if word not in WORDS:
            total += -math.inf if chosen.unknown_score is None else chosen.unknown_score
    return total + (chosen.lm_weight * model.score(words).sum() if model else 0)


def letter_score(labels: tuple[int, ...], chosen: FusionWeights, model=LETTER_MODEL) -> float:
    words, silences = split(labels)
    spelled = [LETTERS[label] for label in labels]
    if spelled and spelled[-1] != "|":
        spelled.append("|")
    total = chosen.word_score * len(words) + chosen.silence_weight * silences
    return total + (chosen.lm_weight * model.score(spelled).sum() if model else 0)


def assert_ranked(found, wanted: dict[tuple[int, ...], float]) -> None:
    """Check all hypotheses: every sequence that is possible, with its score, in order."""
    wanted = {labels: score for labels, score in wanted.items() if score > -math.inf}
    assert {hypothesis.labels for hypothesis in found} == wanted.keys()
    for hypothesis in found:
        assert hypothesis.score == pytest.approx(wanted[hypothesis.labels], abs=1e-5)
        assert hypothesis.text == " ".join(split(hypothesis.labels)[0])
    assert [h.score for h in found] == sorted((h.score for h in found), reverse=True)


@settings(max_examples=40, deadline=None)
@given(lattices, weights, st.booleans())
def test_words_are_found_as_by_trying_every_alignment(lattice, chosen, with_model):
    logits, model = draw(*lattice), WORD_MODEL if with_model else None
    fusion = WordFusion(LETTERS, WORDS, chosen, model)
    wanted = {labels: sound + word_score(labels, chosen, model) for labels, sound in sounds(logits).items()}
    assert_ranked(beam_search(logits, LETTERS, fusion, EXACT, best=10**6), wanted)


@settings(max_examples=40, deadline=None)
@given(lattices, weights, st.booleans())
def test_letters_are_found_as_by_trying_every_alignment(lattice, chosen, with_model):
    logits, model = draw(*lattice), LETTER_MODEL if with_model else None
    fusion = LetterFusion(LETTERS, chosen, model)
    wanted = {labels: sound + letter_score(labels, chosen, model) for labels, sound in sounds(logits).items()}
    assert_ranked(beam_search(logits, LETTERS, fusion, EXACT, best=10**6), wanted)


@settings(max_examples=20, deadline=None)
@given(lattices)
def test_the_best_alignment_may_stand_for_all(lattice):
    logits = draw(*lattice)
    exact = BeamConfig(size=10**6, alignments="best", recombine=False)
    found = beam_search(logits, LETTERS, LetterFusion(LETTERS, FusionWeights()), exact, best=10**6)
    assert_ranked(found, sounds(logits, max))


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 60), st.integers(0, 2**32 - 1), st.sampled_from([1, 3]))
def test_the_best_alignment_without_language_is_the_greedy_one(frames, seed, size):
    logits = draw(frames, seed)
    config = BeamConfig(size=size, alignments="best")
    found = beam_search(logits, LETTERS, LetterFusion(LETTERS, FusionWeights()), config)[0]
    assert found.text == " ".join(ctc.greedy(torch.from_numpy(logits), LETTERS).split())
    assert found.score == pytest.approx(log_softmax(logits).max(axis=1).sum(initial=0))


@settings(max_examples=40, deadline=None)
@given(lattices, weights, st.booleans())
def test_dropping_prefixes_with_the_same_future_loses_no_best_one(lattice, chosen, of_words):
    logits = draw(*lattice)
    if of_words:
        fusion, score = WordFusion(LETTERS, WORDS, chosen, WORD_MODEL), word_score
    else:
        fusion, score = LetterFusion(LETTERS, chosen, LETTER_MODEL), letter_score
    found = beam_search(logits, LETTERS, fusion, BeamConfig(size=10**6, alignments="best"))[0]
    wanted = {labels: sound + score(labels, chosen) for labels, sound in sounds(logits, max).items()}
    assert found.score == pytest.approx(max(wanted.values()), abs=1e-5)
    assert wanted[found.labels] == pytest.approx(found.score, abs=1e-5)


def test_old_ambiguities_do_not_fill_the_beam():
    rng = np.random.default_rng(1)
    single = train([["A"], ["B"]], 1)
    fusion = WordFusion(LETTERS, ["A", "B"], FusionWeights(1.0), single)
    logits = np.where(
        np.arange(80)[:, None] % 4 == 3, [0, 9, 0, 0], np.where(np.arange(80)[:, None] % 2, 0, [0, 0, 9, 9])
    )
    logits = logits + rng.normal(0, 1, (80, 4))
    plain, merged = (
        beam_search(logits, LETTERS, fusion, BeamConfig(size=30, alignments="best", recombine=recombine))[0].score
        for recombine in (False, True)
    )
    assert merged > plain + 0.1


def test_the_sum_over_alignments_can_beat_the_greedy_one():
    logits = np.log(np.array([[0.6, 0.0, 0.4, 0.0], [0.6, 0.0, 0.4, 0.0]]) + 1e-9)
    found = beam_search(logits, LETTERS, LetterFusion(LETTERS, FusionWeights()), EXACT)[0]
    assert ctc.greedy(torch.from_numpy(logits), LETTERS) == ""
    assert (found.text, math.exp(found.score)) == ("A", pytest.approx(0.64, abs=1e-6))


@settings(max_examples=15, derandomize=True)  # what is true of nearly all lattices, and of these
@given(st.integers(0, 2**32 - 1), weights)
def test_a_wide_beam_does_not_miss_what_a_narrow_one_finds(seed, chosen):
    logits = draw(30, seed, spread=3.0)
    fusion = WordFusion(LETTERS, WORDS, chosen, WORD_MODEL)
    narrow, wide = (
        beam_search(logits, LETTERS, fusion, BeamConfig(size=size, recombine=False))[0].score for size in (20, 1000)
    )
    assert wide >= narrow - 1e-9


def test_generous_thresholds_change_nothing_and_narrow_ones_only_lose():
    logits = draw(40, 3, spread=4.0)
    fusion = WordFusion(LETTERS, WORDS, FusionWeights(0.5, 0.2), WORD_MODEL)
    plain, generous, narrow = (
        beam_search(logits, LETTERS, fusion, BeamConfig(size=200, **limits))[0]
        for limits in ({}, {"threshold": 60.0, "token_threshold": 60.0, "tokens": 3}, {"tokens": 1, "threshold": 0.5})
    )
    assert generous.labels == plain.labels
    assert generous.score == pytest.approx(plain.score, abs=1e-6)
    assert narrow.score <= plain.score


def test_a_constant_per_frame_changes_no_order():
    logits = draw(6, 5)
    fusion = WordFusion(LETTERS, WORDS, FusionWeights(1.0, 0.2), WORD_MODEL)
    shifted = logits + np.arange(6)[:, None]
    first, second = (beam_search(values, LETTERS, fusion, EXACT, best=20) for values in (logits, shifted))
    assert [h.labels for h in first] == [h.labels for h in second]


def test_a_closed_lexicon_keeps_finished_words_where_nothing_may_end():
    logits = np.full((4, 4), -200.0)
    logits[np.arange(4), [2, 1, 3, 0]] = 0.0
    closed = WordFusion(LETTERS, ["A", "BA"], FusionWeights())
    found = beam_search(logits, LETTERS, closed, BeamConfig(size=1))[0]
    assert found.text == "A"


def test_letters_that_the_model_has_not_seen_are_not_written():
    logits = np.zeros((2, 5))
    logits[:, 4] = 50.0
    found = beam_search(logits, [*LETTERS, "Z"], LetterFusion([*LETTERS, "Z"], FusionWeights(1.0), LETTER_MODEL), EXACT)
    assert "Z" not in found[0].text


def test_a_word_that_is_being_spelled_counts_as_the_likeliest_it_may_become():
    fusion = WordFusion(LETTERS, WORDS, FusionWeights(2.0), WORD_MODEL)
    single = {word: WORD_MODEL.step(np.array([0]), np.array([WORD_MODEL.number(word)]))[0][0] for word in WORDS}
    gains = fusion.gains(fusion.start(), np.array([1, 2, 3]))[0]
    assert gains == pytest.approx([0, 2 * max(single["A"], single["AB"]), 2 * max(single["BA"], single["BB"])])


def test_no_frames_are_an_empty_transcript_and_odd_logits_a_fault():
    fusion = LetterFusion(LETTERS, FusionWeights())
    assert beam_search(np.zeros((0, 4)), LETTERS, fusion, EXACT)[0].text == ""
    with pytest.raises(ValueError, match="numbers"):
        beam_search(np.full((2, 4), np.nan), LETTERS, fusion, EXACT)
