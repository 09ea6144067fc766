"""Scores beside hand-made ones."""

import numpy as np
import pytest
from sklearn.metrics import top_k_accuracy_score

from stages.metrics import BEST, best_scores, class_scores

CLASSES = [f"class {number}" for number in range(12)]


def test_the_best_five_are_scored_as_scikit_learn_scores_them():
    rng = np.random.default_rng(0)
    truths, logits = rng.integers(12, size=200), rng.normal(size=(200, 12))
    ranked = [[CLASSES[number] for number in np.argsort(-row)[:BEST]] for row in logits]
    expected = 100 * top_k_accuracy_score(truths, logits, k=BEST, labels=range(12))
    assert best_scores([CLASSES[n] for n in truths], ranked) == {"top5": pytest.approx(expected)}


def test_rows_without_a_right_answer_and_tasks_of_few_classes_are_left_out():
    best = CLASSES[:5]
    assert best_scores([CLASSES[4], "", CLASSES[7]], [best, best, best]) == {"top5": 50.0}
    assert best_scores(["a", "b"], [["a"], ["a"]]) == {}


def test_every_class_has_its_precision_recall_and_f1():
    truths, answers = ["a", "a", "a", "b"], ["a", "a", "b", "b"]
    assert class_scores(truths, answers, ["a", "b", "c"]) == [
        {"class": "a", "rows": 3, "precision": "100.00", "recall": "66.67", "f1": "80.00"},
        {"class": "b", "rows": 1, "precision": "50.00", "recall": "100.00", "f1": "66.67"},
        {"class": "c", "rows": 0, "precision": "0.00", "recall": "0.00", "f1": "0.00"},
    ]
