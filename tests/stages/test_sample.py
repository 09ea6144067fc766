"""The sample corpora: repeatable, in the layouts of the real ones, and with nothing shared between splits."""

import re
import sys
from collections import Counter
from pathlib import Path

import pytest
import soundfile
import torch
import yaml
from sklearn.datasets import load_digits
from torchvision.io import read_image

from d2v_core.config import build
from d2v_core.errors import UserError
from stages.sample import __main__ as sample
from stages.sample import fraction, pick, speech, text

pytestmark = pytest.mark.filterwarnings("ignore:The image decoding and encoding capabilities:DeprecationWarning")


def speaker(number: int, voice: str) -> dict:
    return {"speaker": number, "voice": voice, "pitch": 50, "speed": 160}


def parameters() -> dict:
    return {
        "speech": {
            "seed": 1,
            "sentence_share": 0.3,
            "longest_digit_string": 3,
            "utterances_per_chapter": 4,
            "train": {
                "utterances_per_speaker": 6,
                "speakers": [speaker(101, "en-us+m1"), speaker(102, "en-gb-x-rp+f3")],
            },
            "dev": {"utterances_per_speaker": 2, "speakers": [speaker(201, "en-us-nyc")]},
            "test": {"utterances_per_speaker": 2, "speakers": [speaker(301, "en-us+f5")]},
        },
        "vision": {"seed": 1, "test_images_per_digit": 40},
        "text": {
            "seed": 1,
            "valid_share": 0.2,
            "test_share": 0.2,
            "shortest_sentence": 6,
            "longest_sentence": 60,
        },
    }


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    """Work in an empty folder that has nothing but params.yaml; return a function that rewrites it."""
    monkeypatch.chdir(tmp_path)

    def write(values: dict) -> None:
        Path("params.yaml").write_text(yaml.safe_dump({"sample": values}))

    write(parameters())
    return write


def contents(folder: str) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(Path(folder).rglob("*")) if path.is_file()}


@pytest.mark.parametrize("corpus", ["speech", "vision", "text", "topics"])
def test_every_run_writes_the_same_bytes_and_leaves_nothing_else(corpus):
    sample.main(corpus)
    first = contents("data/raw")
    Path(f"data/raw/{corpus}/stale").touch()
    sample.main(corpus)
    assert first
    assert contents("data/raw") == first
    assert [path.name for path in Path("data/raw").iterdir()] == [corpus]


def test_speech_has_the_layout_of_librispeech_and_audio_that_fits_the_transcripts():
    sample.main("speech")
    utterances = {}
    for listing in Path("data/raw/speech").glob("*/*/*/*.trans.txt"):
        split, person, chapter = listing.parts[3:6]
        assert listing.name == f"{person}-{chapter}.trans.txt"
        for line in listing.read_text().splitlines():
            name, words = line.split(" ", 1)
            assert re.fullmatch(rf"{person}-{chapter}-\d{{4}}", name)
            assert re.fullmatch(r"[A-Z']+( [A-Z']+)*", words)
            utterances[listing.parent / f"{name}.flac"] = (split, words)
    assert set(utterances) == set(Path("data/raw/speech").rglob("*.flac"))
    assert Counter(split for split, _ in utterances.values()) == {"train-sample": 12, "dev-sample": 2, "test-sample": 2}
    for path, (_, words) in utterances.items():
        samples, rate = soundfile.read(path)
        assert (rate, samples.ndim, soundfile.info(path).subtype) == (22_050, 1, "PCM_16")
        assert 0.04 < len(samples) / rate / len(words) < 0.15
        assert abs(samples).max() > 0.2


def test_no_speaker_is_in_two_splits(project):
    sample.main("speech")
    numbers = [path.name for path in Path("data/raw/speech").glob("*-sample/*")]
    assert sorted(numbers) == ["101", "102", "201", "301"]
    values = parameters()
    values["speech"]["test"]["speakers"][0]["speaker"] = 101
    project(values)
    with pytest.raises(UserError, match="must not share a speaker number"):
        sample.main("speech")


def test_voices_differ():
    sample.main("speech")
    recordings = [path.read_bytes() for path in Path("data/raw/speech").rglob("*.flac")]
    assert len(set(recordings)) == len(recordings)


@pytest.mark.parametrize("voice", ["en-gb", "en-us+nosuch", "nosuch"])
def test_a_voice_that_espeak_does_not_have_is_an_error_and_publishes_nothing(project, voice):
    sample.main("speech")
    before = contents("data/raw")
    values = parameters()
    values["speech"]["dev"]["speakers"][0]["voice"] = voice
    project(values)
    with pytest.raises(UserError, match=re.escape(f"no voice {voice!r}")):
        sample.main("speech")
    assert contents("data/raw") == before


def test_a_missing_synthesiser_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(UserError, match="pip install espeakng-loader"):
        sample.main("speech")


def test_sentences_and_digit_strings_come_in_the_share_asked_for():
    config = build(speech.SpeechSample, parameters()["speech"], "sample.speech")
    said = [speech.transcript(config, f"1-1-{index}").split() for index in range(2000)]
    digits = [words for words in said if set(words) <= set(speech.DIGITS)]
    assert 0.66 < len(digits) / len(said) < 0.74
    assert set(map(len, digits)) == {1, 2, 3}
    assert set().union(*digits) == set(speech.DIGITS)


def test_vision_holds_out_the_same_number_of_every_digit_and_keeps_the_grey_values():
    sample.main("vision")
    digits = load_digits()
    files = {int(path.stem): path for path in Path("data/raw/vision").rglob("*.png")}
    assert len(files) == 1797
    assert Counter(path.parts[3:5] for path in files.values() if "test" in path.parts) == {
        ("test", str(digit)): 40 for digit in range(10)
    }
    for index in range(0, 1797, 100):
        assert files[index].parent.name == str(digits.target[index])
        image = read_image(str(files[index]))
        assert torch.equal(image[0], torch.from_numpy(digits.images[index] * 255 / 16).round().to(torch.uint8))


def plain(split: str) -> str:
    files = sorted(Path(f"data/raw/text/{split}").glob("*.txt"))
    return " \n ".join(text.normal(part) for file in files for part in file.read_text(encoding="utf-8").split("\n\n"))


def test_text_has_no_paragraph_in_two_splits_and_about_the_shares_asked_for():
    sample.main("text")
    parts = {split: plain(split).split(" \n ") for split in ("train", "valid", "test")}
    everything = [part for split in parts.values() for part in split]
    assert len(everything) == len(set(everything)) > 1500
    assert all(everything)
    for split, share in (("train", 0.6), ("valid", 0.2), ("test", 0.2)):
        assert abs(len(parts[split]) / len(everything) - share) < 0.04
    lines = [line for path in Path("data/raw/text").rglob("*.txt") for line in path.read_text("utf-8").splitlines()]
    assert not any(re.fullmatch(r"[*=~-]{3,}", line) for line in lines)


def test_topics_has_eight_groups_and_nothing_held_out_is_in_the_text_to_pretrain_on():
    sample.main("text")
    sample.main("topics")
    train = plain("train")
    for split in ("train", "dev", "test"):
        header, *rows = Path(f"data/raw/topics/{split}.tsv").read_text(encoding="utf-8").splitlines()
        assert header == "sentence\tlabel"
        pairs = [tuple(row.split("\t")) for row in rows]
        assert set(map(len, pairs)) == {2}
        assert len(set(pairs)) == len(pairs)
        assert {label for _, label in pairs} == set(text.GROUPS)
        assert all(6 <= len(sentence.split()) <= 60 for sentence, _ in pairs)
        assert all((sentence in train) == (split == "train") for sentence, _ in pairs)


def test_every_topic_is_in_one_group():
    names = " ".join(text.GROUPS.values()).split()
    assert len(set(names)) == len(names)
    assert set(names) <= set(text.topics)


def test_an_unknown_corpus_names_the_valid_ones():
    with pytest.raises(UserError, match="speech, vision, text, topics"):
        sample.main("music")


def test_a_number_out_of_range_names_its_key(project):
    values = parameters()
    values["text"]["test_share"] = 0.9
    project(values)
    with pytest.raises(UserError, match=r"sample\.text\.test_share"):
        sample.main("topics")


def test_numbers_belong_to_their_key():
    numbers = [fraction(1, "speech", index) for index in range(4000)]
    assert numbers[0] == fraction(1, "speech", 0) != fraction(2, "speech", 0)
    assert 0 <= min(numbers) < max(numbers) < 1
    assert abs(sum(numbers) / len(numbers) - 0.5) < 0.02
    assert {pick("abc", index) for index in range(50)} == set("abc")
