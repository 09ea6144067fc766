"""The sample corpora: repeatable, in the layouts of the real ones, and with nothing shared between splits."""

import re
import sys
from collections import Counter
from pathlib import Path

import pytest
import soundfile
import torch
from sklearn.datasets import load_digits
from torchvision.io import read_image

from d2v_core.config import build
from d2v_core.errors import UserError
from stages.sample import __main__ as sample
from stages.sample import fraction, pick, speech, text
from tests.tiny import contents

RAW = Path("data/raw")


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
def _small(project):
    project.set(sample=parameters())


@pytest.mark.parametrize("corpus", ["speech", "vision", "text", "topics"])
def test_every_run_writes_the_same_bytes_and_leaves_nothing_else(corpus):
    sample.main(corpus)
    first = contents(RAW)
    Path(RAW, corpus, "stale").touch()
    sample.main(corpus)
    assert first
    assert contents(RAW) == first
    assert [path.name for path in RAW.iterdir()] == [corpus]


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
    assert sorted(path.name for path in RAW.glob("speech/*/*")) == ["101", "102", "201", "301"]
    for path, (_, words) in utterances.items():
        samples, rate = soundfile.read(path)
        assert (rate, samples.ndim, soundfile.info(path).subtype) == (22_050, 1, "PCM_16")
        assert 0.04 < len(samples) / rate / len(words) < 0.15
        assert abs(samples).max() > 0.2


def test_a_speaker_in_two_splits_is_an_error(project):
    project.set(sample__speech__test__speakers=[speaker(101, "en-us+f5")])
    with pytest.raises(UserError, match="must not share a speaker number"):
        sample.main("speech")


def test_voice_pitch_and_speed_are_heard():
    people = [("en-us+m1", 50, 160), ("en-us+f5", 50, 160), ("en-us+m1", 80, 160), ("en-us+m1", 50, 320)]
    tasks = [(Path(f"{number}.flac"), "ONE", speech.Speaker(1, *how)) for number, how in enumerate(people)]
    list(speech.in_processes(speech.record, tasks))
    recordings = [soundfile.read(path)[0] for path, *_ in tasks]
    assert len({wave.tobytes() for wave in recordings}) == len(people)
    assert len(recordings[-1]) < 0.7 * len(recordings[0])


@pytest.mark.parametrize("voice", ["en-gb", "en-us+nosuch", "nosuch"])
def test_a_voice_that_espeak_does_not_have_is_an_error_and_publishes_nothing(project, voice):
    (RAW / "speech").mkdir(parents=True)
    (RAW / "speech/before").touch()
    before = contents(RAW)
    project.set(sample__speech__train__utterances_per_speaker=1)
    project.set(sample__speech__dev__speakers=[speaker(201, voice)])
    with pytest.raises(UserError, match=re.escape(f"no voice {voice!r}")):
        sample.main("speech")
    assert contents(RAW) == before
    assert not project.unfinished


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
    project.set(sample__text__test_share=0.9)
    with pytest.raises(UserError, match=r"sample\.text\.test_share"):
        sample.main("topics")


def test_numbers_belong_to_their_key():
    numbers = [fraction(1, "speech", index) for index in range(4000)]
    assert numbers[0] == fraction(1, "speech", 0) != fraction(2, "speech", 0)
    assert 0 <= min(numbers) < max(numbers) < 1
    assert abs(sum(numbers) / len(numbers) - 0.5) < 0.02
    assert {pick("abc", index) for index in range(50)} == set("abc")
