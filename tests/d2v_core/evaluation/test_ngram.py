"""N-gram models: trained as a slow and plain account of Kneser-Ney says, kept through files, asked as ARPA means."""

import gzip
import itertools
import math
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d2v_core.errors import UserError
from d2v_core.evaluation.arpa import read_arpa, write_arpa
from d2v_core.evaluation.kneser_ney import FALLBACK, estimate_discounts, train
from d2v_core.evaluation.ngram import BEGIN, END, UNKNOWN, Grams, NGram, pack

sentences = st.lists(st.lists(st.sampled_from("abcde"), min_size=1, max_size=7), min_size=1, max_size=12)
HAND = """\\data\\
ngram 1=5
ngram 2=3
ngram 3=1

\\1-grams:
-99\t<s>\t-0.5
-0.7\t</s>
-2\t<UNK>
-0.3\ta\t-0.25
-0.6\tb\t-0.125

\\2-grams:
-0.2\t<s> a\t-0.0625
-0.4\ta b\t-0.03125
-0.1\tb </s>

\\3-grams:
-0.05\t<s> a b

\\end\\
"""


def plain(corpus: list[list[str]], order: int) -> tuple:
    """Return a function of (word, context) that is interpolated modified Kneser-Ney by its formulas, and the words."""
    lines = [[BEGIN, *line, END] for line in corpus]
    raw = [Counter() for _ in range(order + 1)]
    before = [defaultdict(set) for _ in range(order + 1)]
    for line, length in itertools.product(lines, range(1, order + 1)):
        for start in range(len(line) - length + 1):
            gram = tuple(line[start : start + length])
            raw[length][gram] += 1
            if start:
                before[length][gram].add(line[start - 1])
    counts = [{} for _ in range(order + 1)]
    for length in range(1, order + 1):
        for gram, number in raw[length].items():
            kept = length == order or gram[0] == BEGIN
            counts[length][gram] = number if kept else len(before[length][gram])
    counts[1].pop((BEGIN,))
    words = sorted({word for line in corpus for word in line} | {END, UNKNOWN})

    def probability(word: str, context: tuple[str, ...]) -> float:
        lower = probability(word, context[1:]) if context else 1 / len(words)
        table = counts[len(context) + 1]
        after = {gram: number for gram, number in table.items() if gram[:-1] == context}
        if not after:
            return lower
        taken = estimate_discounts(np.array(list(table.values())))
        total = sum(after.values())
        count = after.get((*context, word), 0)
        left = sum(taken[min(number, 3)] for number in after.values())
        return (count - taken[min(count, 3)]) / total + left / total * lower

    return probability, words


def state_of(model: NGram, context: list[str]) -> np.ndarray:
    state = np.array([model.begin()])
    for word in context:
        state = model.step(state, np.array([model.number(word)]))[1]
    return state


@settings(max_examples=40, deadline=None)
@given(sentences, st.integers(1, 4), st.lists(st.sampled_from("abcde"), max_size=4))
def test_training_is_kneser_ney_and_every_context_sums_to_one(corpus, order, context):
    model = train(corpus, order)
    probability, words = plain(corpus, order)
    state = state_of(model, context)
    known = [word if word in words else UNKNOWN for word in context]
    found = [10 ** model.step(state, np.array([model.number(word)]))[0][0] for word in words]
    history = tuple([BEGIN, *known][max(0, len(known) + 2 - order) :]) if order > 1 else ()
    assert found == pytest.approx([probability(word, history) for word in words], rel=1e-4)
    assert sum(found) == pytest.approx(1, abs=1e-5)


def test_a_bigram_model_by_hand():
    model = train([["a", "b"], ["a"]], 2)
    # Discounts are the fallback: 0.5, 1, 1.5. Different words before a, b, </s>: 1 (<s>), 1 (a), 2 (a, b); 4 in all.
    # Left to the uniform distribution over a, b, </s>, <unk>: (0.5 + 0.5 + 1) / 4 = 0.5, an eighth each.
    lower = {"a": 0.5 / 4 + 0.125, "b": 0.5 / 4 + 0.125, END: 1 / 4 + 0.125, UNKNOWN: 0.125}
    for word, value in lower.items():
        assert 10 ** model.step(np.array([0]), np.array([model.number(word)]))[0][0] == pytest.approx(value)
    # <s> a occurs twice: (2 - 1) / 2 + 1 / 2 · P(a); after a: b and </s> once each, so that half is left.
    assert 10 ** model.score(["a"])[0] == pytest.approx(0.5 + 0.5 * 0.25)
    assert 10 ** model.score(["a"])[1] == pytest.approx(0.5 / 2 + 0.5 * 0.375)
    assert 10 ** model.score(["a", "zebra"])[1] == pytest.approx(0.5 * 0.125)


def test_discounts_are_estimated_where_counts_of_counts_allow():
    counts = np.repeat([1, 2, 3, 4, 9], [8, 4, 2, 1, 3])
    share = 8 / 16
    wanted = [0, 1 - 2 * share * 4 / 8, 2 - 3 * share * 2 / 4, 3 - 4 * share * 1 / 2]
    assert estimate_discounts(counts) == pytest.approx(wanted)
    assert (estimate_discounts(np.array([1, 1, 2])) == FALLBACK).all()


def test_what_was_learnt_is_likelier_than_chance():
    rng = np.random.default_rng(0)
    corpus = [list("abcde")[start:] + list("abcde")[:start] for start in rng.integers(0, 5, 60)]
    unigram, trigram = (train(corpus[:40], order).perplexity(corpus[40:]) for order in (1, 3))
    assert trigram < unigram < 7
    assert trigram < 2.5


def test_perplexity_is_that_of_the_single_scores():
    corpus = [list("abc"), list("b"), list("cabd")]
    model = train(corpus, 3)
    scores = np.concatenate([model.score(sentence) for sentence in corpus])
    assert model.perplexity(corpus) == pytest.approx(10 ** -scores.mean())


@settings(max_examples=20, deadline=None)
@given(sentences, st.integers(1, 4), st.booleans())
def test_a_model_survives_its_file(tmp_path_factory, corpus, order, packed):
    path = tmp_path_factory.mktemp("arpa") / ("model.arpa.gz" if packed else "model.arpa")
    model = train(corpus, order)
    write_arpa(path, model)
    read, first = read_arpa(path), path.read_bytes()
    assert read.words == model.words
    for name in ("keys", "suffix", "log_probability", "back_off"):
        np.testing.assert_allclose(getattr(read, name), getattr(model, name), rtol=1e-6, err_msg=name)
    write_arpa(path, read)
    assert path.read_bytes() == first


def test_a_written_model_backs_off_as_arpa_means(tmp_path):
    path = tmp_path / "hand.arpa"
    path.write_text(HAND)
    model = read_arpa(path)
    assert model.order == 3
    assert model.score(["a", "b"]) == pytest.approx([-0.2, -0.05, -0.03125 - 0.1])
    assert model.score(["b", "a"]) == pytest.approx([-0.5 - 0.6, -0.125 - 0.3, -0.25 - 0.7])
    assert model.score(["a", "a"])[1] == pytest.approx(-0.0625 - 0.25 - 0.3)
    assert model.score(["x"]) == pytest.approx([-0.5 - 2, -0.7])


def test_a_model_without_unknown_words_makes_them_nearly_impossible(tmp_path):
    path = tmp_path / "hand.arpa"
    path.write_text(HAND.replace("-2\t<UNK>\n", "").replace("ngram 1=5", "ngram 1=4"))
    assert read_arpa(path).score(["x"])[0] == pytest.approx(-100.5)


def test_a_missing_suffix_is_found_further_down(tmp_path):
    path = tmp_path / "pruned.arpa"
    path.write_text(HAND.replace("-0.4\ta b\t-0.03125\n", "").replace("ngram 2=3", "ngram 2=2"))
    model = read_arpa(path)
    assert model.score(["a", "b"]) == pytest.approx([-0.2, -0.05, -0.1])


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("\\data\\", "data", "no \\\\data"),
        ("ngram 3=1", "ngram 3=2", "under .3-grams"),
        ("ngram 2=3", "ngram 2=2", "should come where"),
        ("-0.2\t<s> a", "x\t<s> a", "could not convert"),
        ("\t<s> a b", "\t<s> b b", "without the n-gram of all its words but the last"),
        ("-0.6\tb\t", "-0.6\ta\t", "listed twice"),
        ("-0.1\tb </s>", "-0.4\ta b\t0", "listed twice"),
        ("-0.1\tb </s>", "-0.1\tb zebra", "zebra"),
        ("\\end\\", "", "end"),
        ("</s>", "<e>", "</s> is not among its words"),
    ],
)
def test_a_damaged_file_is_one_sentence(tmp_path, old, new, reason):
    path = tmp_path / "bad.arpa"
    path.write_text(HAND.replace(old, new))
    with pytest.raises(UserError, match=reason) as fault:
        read_arpa(path)
    assert str(path) in str(fault.value)
    assert "\n" not in str(fault.value)


def test_a_cut_off_or_missing_file_is_one_sentence(tmp_path):
    path = tmp_path / "cut.arpa.gz"
    path.write_bytes(gzip.compress(HAND.encode())[:-20])
    with pytest.raises(UserError, match="not a whole ARPA file"):
        read_arpa(path)
    with pytest.raises(UserError, match="is missing"):
        read_arpa(tmp_path / "none.arpa")


@pytest.mark.parametrize("corpus", [[], [["<s>", "a"]]])
def test_what_is_no_text_is_refused(corpus):
    with pytest.raises(ValueError, match=r"no word|cannot be words"):
        train(corpus, 2)


def test_the_empty_gram_is_no_gram():
    single = Grams(np.array([[0], [1], [2]]), np.log10([0.5, 1e-9, 0.5]), np.zeros(3))
    model = pack([UNKNOWN, BEGIN, END], [single])
    assert model.score([]) == pytest.approx([math.log10(0.5)])
