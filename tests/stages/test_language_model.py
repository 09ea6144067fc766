"""From transcripts to a language model, to tuned weights, to transcripts that are scored in detail."""

import csv
from copy import deepcopy
from pathlib import Path

import jiwer
import numpy as np
import pytest

from d2v_core.evaluation.arpa import read_arpa
from d2v_core.evaluation.fusion import FusionWeights
from stages import decoding
from stages.metrics import transcription_scores
from stages.transcript_scores import count_edits, detailed_scores, worst
from stages.tune_decoding import choose
from tests.tiny import Project, contents

LANGUAGE = {"modality": "speech", "table": "speech", "unit": "words", "order": 3}
DECODING = {
    "task": "transcribe",
    "language_model": "models/language/transcripts",
    "unit": "words",
    "unknown_score": None,
    "beam": {"size": 8},
    "tune": {"lm_weights": [0.0, 1.0], "word_scores": [0.0, 1.0]},
    "worst": 3,
    "resamples": 50,
}


@pytest.fixture
def spoken(project) -> Project:
    """A project with a speech table, a language model to make and a way to decode."""
    project.set(language={"transcripts": dict(LANGUAGE)}, decoding={"transcribe": deepcopy(DECODING)})
    return project.prepare("speech")


def tuned(project: Project) -> Project:
    """Train the models of the project and its language model, and tune."""
    project.done("pretrain", "speech")
    for origin in ("pretrained", "scratch"):
        project.done("finetune", "transcribe", origin)
    project.done("language_model", "transcripts")
    project.done("tune_decoding", "transcribe")
    return project


def rows(path: str) -> list[dict[str, str]]:
    with Path(path).open(newline="") as lines:
        return list(csv.DictReader(lines))


def test_transcripts_make_a_model_that_expects_them(spoken):
    said = spoken.done("language_model", "transcripts")
    model = read_arpa(Path("models/language/transcripts/model.arpa.gz"))
    numbers = spoken.json("metrics/transcripts/language_model.json")
    assert "THE" in model.words
    assert f"perplexity {numbers['train']['perplexity']}" in said
    assert numbers["train"]["perplexity"] < numbers["train"]["uniform_perplexity"] == len(model.words) - 1
    assert numbers["train"]["unknown_percent"] == 0
    first = contents(Path("models/language"))
    spoken.done("language_model", "transcripts")
    assert contents(Path("models/language")) == first


def test_any_text_makes_a_model_of_letters(spoken):
    Path("lines.txt").write_text("ab ba\n\nab\n")
    spoken.set(language__transcripts__text="lines.txt", language__transcripts__unit="letters")
    spoken.done("language_model", "transcripts")
    model = read_arpa(Path("models/language/transcripts/model.arpa.gz"))
    assert set(model.words) == {"<unk>", "<s>", "</s>", "|", "a", "b"}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"language__transcripts__text": "none.txt"}, "none.txt is missing"),
        ({"language__transcripts__text": "empty.txt"}, "empty.txt makes no language model: there is no word"),
        ({"language__transcripts__text": "marks.txt"}, "cannot be words of a sentence"),
        ({"language__transcripts__text": "bytes.txt"}, "bytes.txt cannot be read as text"),
        ({"language__transcripts__order": 0}, "language.transcripts.order must be positive"),
    ],
)
def test_what_makes_no_model_is_one_sentence(spoken, changes, sentence):
    Path("empty.txt").write_text("\n")
    Path("marks.txt").write_text("<s> a </s>\n")
    Path("bytes.txt").write_bytes(b"\xff\xfe\xff")
    spoken.set(**changes)
    assert sentence in spoken.refused("language_model", "transcripts")
    assert not Path("models/language/transcripts").exists()


def test_weights_are_tuned_and_transcripts_scored_beside_greedy_ones(spoken):
    tuned(spoken)
    choice = spoken.json("metrics/transcribe/tuned.json")["pretrained"]
    assert len(choice["tried"]) == 4
    assert choice["chosen"]["word_error_rate"] == min(row["word_error_rate"] for row in choice["tried"])
    spoken.done("decode", "transcribe")
    numbers = spoken.json("metrics/transcribe/decode.json")
    listed = rows("plots/transcribe/decoded.csv")
    found = [row for row in listed if row["origin"] == "pretrained"]
    for method in ("greedy", "beam"):
        scores = numbers["pretrained"]["test"][method]
        truths, answers = [row["actual"] for row in found], [row[method] for row in found]
        assert scores["word_error_rate"]["mean"] == round(100 * jiwer.wer(truths, answers), 2)
        parts = sum(scores[f"word_{kind}"]["mean"] for kind in ("substitutions", "insertions", "deletions"))
        assert parts == pytest.approx(scores["word_error_rate"]["mean"], abs=0.02)
    words = set(read_arpa(Path("models/language/transcripts/model.arpa.gz")).words)
    assert {word for row in listed for word in row["beam"].split()} <= words
    assert len(rows("plots/transcribe/worst.csv")) == 2 * DECODING["worst"]
    spoken.done("evaluate", "transcribe")
    evaluated = spoken.json("metrics/transcribe/evaluate.json")["pretrained"]["test"]
    decoded = numbers["pretrained"]["test"]["greedy"]
    assert evaluated["word_error_rate"].items() >= decoded["word_error_rate"].items()
    assert evaluated["word_error_rate"]["low"] == decoded["word_error_rate_low"]["mean"]
    first = contents(Path("metrics/transcribe"))
    spoken.done("tune_decoding", "transcribe")
    spoken.done("decode", "transcribe")
    assert contents(Path("metrics/transcribe")) == first


def test_decoding_needs_letters_a_model_and_tuned_weights(spoken):
    assert "tuned.json is missing; run the stage tune_decoding@transcribe" in spoken.refused("decode", "transcribe")
    spoken.set(decoding__transcribe__tune__lm_weights=[])
    assert "tune.lm_weights must hold at least one number" in spoken.refused("tune_decoding", "transcribe")
    spoken.prepare("vision").set(decoding__transcribe=deepcopy(DECODING) | {"task": "digits"})
    assert "'digits' is not" in spoken.refused("tune_decoding", "transcribe")


def test_workers_decode_as_one_process_does(tmp_path, monkeypatch):
    (tmp_path / "lines.arpa").write_text(
        "\\data\\\nngram 1=5\n\n\\1-grams:\n-99\t<s>\n-0.5\t</s>\n-0.5\tA\n-0.7\tAB\n-2\t<unk>\n\n\\end\\\n"
    )
    letters = ("<s>", "|", "A", "B")
    config = decoding.BeamConfig(size=20)
    search = decoding.Search(tmp_path / "lines.arpa", "words", letters, FusionWeights(0.5, 1.0), config)
    logits = [np.random.default_rng(seed).normal(0, 2, (20, 4)) for seed in range(40)]
    alone = decoding.decode_all([search, search], logits, "alone")
    assert alone[0] == alone[1]
    assert len(set(alone[0])) > 1
    monkeypatch.setattr(decoding, "SECONDS_ALONE", -1.0)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    assert decoding.decode_all([search], logits, "together") == alone[:1]


def test_edits_are_counted_by_kind_and_agree_with_the_rates():
    truths, answers = ["A B C", "A B", "C"], ["A X C", "A B B", ""]
    assert count_edits(truths, answers, "word").tolist() == [[1, 0, 0, 3], [0, 1, 0, 2], [0, 0, 1, 1]]
    scores = detailed_scores(truths, answers, resamples=200)
    for name, value in transcription_scores(truths, answers).once().items():
        assert scores[name] == pytest.approx(value)
        if "rate" in name:
            assert scores[f"{name}_low"] <= value <= scores[f"{name}_high"]
    assert scores["word_substitutions"] == pytest.approx(100 / 6)


def test_intervals_narrow_with_more_utterances():
    truths, answers = ["A B"] * 10, ["A B", "A X"] * 5
    few, many = detailed_scores(truths, answers), detailed_scores(truths * 20, answers * 20)
    width = "word_error_rate_high", "word_error_rate_low"
    assert many[width[0]] - many[width[1]] < 0.5 * (few[width[0]] - few[width[1]])


def test_the_worst_come_first_and_ties_by_name():
    found = worst(["b", "a", "c"], ["A", "A", "A B"], ["X", "", "X Y"], 2)
    assert [(row["errors"], row["id"]) for row in found] == [(2, "c"), (1, "a")]


def test_ties_go_to_the_smaller_weights():
    row = {"lm_weight": 1.0, "word_score": 0.0, "silence_weight": 0.0, "word_error_rate": 5, "letter_error_rate": 2}
    assert choose([row, row | {"lm_weight": 0.5}, row | {"letter_error_rate": 3, "lm_weight": 0}])["lm_weight"] == 0.5
