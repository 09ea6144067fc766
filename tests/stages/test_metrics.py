"""Scores beside hand-made ones, scikit-learn's and jiwer's."""

import json

import jiwer
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import pearsonr, spearmanr
from sklearn import metrics as sklearn

from stages.intervals import AT_ONCE, Scoring
from stages.metrics import (
    BEST,
    average_precisions,
    class_scores,
    classification_scores,
    rank,
    regression_scores,
    tag_scores,
    transcription_scores,
)

CLASSES = [f"class {number}" for number in range(12)]
TWO = ["no", "yes"]
TRUTHS = ["ONE TWO THREE", "SIX", "FOUR FIVE", "NINE NINE"]
ANSWERS = ["ONE TOO", "SIX SIX", "FOUR FIVE", "MINE NINE"]


def test_the_best_five_are_scored_as_scikit_learn_scores_them():
    rng = np.random.default_rng(0)
    truths, logits = rng.integers(12, size=200), rng.normal(size=(200, 12))
    ranked = [[CLASSES[number] for number in np.argsort(-row)[:BEST]] for row in logits]
    expected = 100 * sklearn.top_k_accuracy_score(truths, logits, k=BEST, labels=range(12))
    found = classification_scores([CLASSES[n] for n in truths], ranked, CLASSES).once()
    assert found["top5"] == pytest.approx(expected)


def test_classes_fewer_than_five_have_no_best_five():
    assert list(classification_scores(["a", "b"], [["a"], ["a"]], "abc").once()) == ["accuracy", "macro_f1"]


@pytest.mark.filterwarnings("ignore:A single label")
@settings(max_examples=20)
@given(st.lists(st.tuples(st.sampled_from(TWO), st.sampled_from(TWO)), min_size=1), st.randoms())
def test_scores_of_two_classes_are_scikit_learns_also_of_rows_drawn_again(pairs, random):
    truths, answers = (list(column) for column in zip(*pairs, strict=True))
    scoring = classification_scores(truths, [[answer] for answer in answers], TWO)
    rows = [random.randrange(len(pairs)) for _ in pairs]
    truths, answers = [truths[row] for row in rows], [answers[row] for row in rows]
    expected = {
        "accuracy": sklearn.accuracy_score(truths, answers),
        "macro_f1": sklearn.f1_score(truths, answers, average="macro", zero_division=0.0),
        "f1": sklearn.f1_score(truths, answers, pos_label="yes", zero_division=0.0),
        "matthews": sklearn.matthews_corrcoef(*[[name == "yes" for name in names] for names in (truths, answers)]),
    }
    found = scoring.score(np.array(rows))
    assert found == {name: pytest.approx(100 * value, abs=1e-9) for name, value in expected.items()}


@settings(max_examples=20)
@given(st.lists(st.tuples(*[st.sampled_from(CLASSES)] * 2), min_size=1))
def test_macro_f1_is_the_mean_over_the_classes_that_occur(pairs):
    truths, answers = zip(*pairs, strict=True)
    found = classification_scores(truths, [[answer] for answer in answers], CLASSES).once()
    expected = 100 * sklearn.f1_score(truths, answers, average="macro", zero_division=0.0)
    assert found["macro_f1"] == pytest.approx(expected)


def test_every_class_has_its_precision_recall_and_f1():
    truths, answers = ["a", "a", "a", "b"], ["a", "a", "b", "b"]
    expected = [
        {"class": "a", "rows": 3, "precision": "100.00", "recall": "66.67", "f1": "80.00"},
        {"class": "b", "rows": 1, "precision": "50.00", "recall": "100.00", "f1": "66.67"},
        {"class": "c", "rows": 0, "precision": "0.00", "recall": "0.00", "f1": "0.00"},
    ]
    assert class_scores(truths, answers, ["a", "b", "c"]) == expected
    one_hot = [np.array([[name == other for other in "abc"] for name in names]) for names in (truths, answers)]
    assert class_scores(*one_hot, ["a", "b", "c"]) == expected


def test_error_rates_are_jiwers_and_their_kinds_add_up():
    found = transcription_scores(TRUTHS, ANSWERS).once()
    assert list(found)[:2] == ["word_error_rate", "letter_error_rate"]
    assert found["word_error_rate"] == pytest.approx(100 * jiwer.wer(TRUTHS, ANSWERS))
    assert found["letter_error_rate"] == pytest.approx(100 * jiwer.cer(TRUTHS, ANSWERS))
    kinds = {"word_substitutions": 2, "word_insertions": 1, "word_deletions": 1}
    assert {name: found[name] for name in kinds} == {name: 100 * count / 8 for name, count in kinds.items()}


@pytest.mark.parametrize(
    ("truths", "logits", "expected"),
    [
        ([1, 0, 1, 0], [4, 3, 2, 1], (1 + 2 / 3) / 2),
        ([1, 1, 0, 0], [4, 3, 2, 1], 1),
        ([0, 0, 0, 1], [4, 3, 2, 1], 1 / 4),
        ([1, 0, 0, 1], [1, 1, 1, 1], 1 / 2),
    ],
)
def test_average_precision_of_small_rankings(truths, logits, expected):
    ranked = rank(np.array(truths)[:, None] > 0, np.array(logits)[:, None])
    assert average_precisions(ranked, np.ones((4, 1))) == pytest.approx(expected)


def by_definition(truths: np.ndarray, logits: np.ndarray) -> float:
    """The mean, over the right rows, of how many of the rows at or above them are right."""
    above = [(logits >= logit) for logit in logits[truths]]
    return float(np.mean([truths[rows].mean() for rows in above]))


@settings(max_examples=50)
@given(st.integers(1, 12), st.integers(1, 4), st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_average_precisions_are_their_definition_also_of_rows_drawn_again(count, classes, levels, seed):
    rng = np.random.default_rng(seed)
    truths, logits = rng.random((count, classes)) < 0.4, rng.integers(0, levels, (count, classes)).astype(float)
    draws = rng.integers(0, count, (3, count))
    weights = np.stack([np.bincount(rows, minlength=count) for rows in draws], axis=1)
    found = average_precisions(rank(truths, logits), weights)
    assert found.shape == (classes, len(draws))
    for (number, draw), precision in np.ndenumerate(found):
        right, given_ = truths[draws[draw], number], logits[draws[draw], number]
        if not right.any():
            assert np.isnan(precision)
        else:
            assert precision == pytest.approx(by_definition(right, given_))
            assert precision == pytest.approx(sklearn.average_precision_score(right, given_))


def test_classes_without_a_row_do_not_count_in_the_mean_of_tags_nor_in_rows_drawn_again():
    rng = np.random.default_rng(0)
    truths, logits = rng.random((50, 4)) < 0.3, rng.normal(size=(50, 4))
    truths[:, 2] = False
    scoring = tag_scores(truths, logits)

    def plainly(rows: np.ndarray) -> dict[str, float]:
        chosen = truths[np.ix_(rows, [0, 1, 3])], logits[np.ix_(rows, [0, 1, 3])]
        return {"mean_average_precision": 100 * sklearn.average_precision_score(*chosen, average="macro")}

    assert scoring.once() == pytest.approx(plainly(np.arange(50)))
    draws = AT_ONCE + 3
    assert scoring.again(draws) == {
        name: pytest.approx(values) for name, values in Scoring(50, plainly).again(draws).items()
    }


def test_correlations_are_those_of_scipy():
    rng = np.random.default_rng(0)
    for levels in (3, 1000):
        x = rng.integers(0, levels, 50) / 7
        y = x + rng.normal(0, 0.5, 50)
        found = regression_scores([repr(float(v)) for v in x], [repr(float(v)) for v in y]).once()
        assert found["pearson"] == pytest.approx(100 * pearsonr(x, y)[0])
        assert found["spearman"] == pytest.approx(100 * spearmanr(x, y)[0])


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=20))
def test_correlations_are_defined_for_any_answers(values):
    texts = [f"{value:.6g}" for value in values]
    for truth in (texts, ["0.5"] * len(texts)):
        scores = regression_scores(truth, texts).once()
        assert all(-100.001 <= score <= 100.001 for score in scores.values())
        json.dumps(scores, allow_nan=False)
