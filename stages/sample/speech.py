"""Spoken digits and short sentences by espeak-ng, in LibriSpeech layout, with other speakers in every split."""

import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import soundfile

from d2v_core.config import require
from d2v_core.data.files import publish_folder
from d2v_core.errors import UserError
from stages import params, progress
from stages.sample import espeak, fraction, pick

FOLDER = Path("data/raw/speech")
DIGITS = ("ZERO", "ONE", "TWO", "THREE", "FOUR", "FIVE", "SIX", "SEVEN", "EIGHT", "NINE")
PEOPLE = ("THE FISHERMAN", "MY SISTER", "OUR TEACHER", "THE BAKER", "A YOUNG DOCTOR", "THE OLD PAINTER", "HER BROTHER")
SENTENCES = (
    "{person} {verb} THE {thing}",
    "{person} {verb} A {thing} {time}",
    "{person} {verb} {owner}'S {thing}",
    "{person}'S {thing} WAS {place}",
    "{time} {person} {verb} THE {thing} {place}",
    "DIDN'T {person} LEAVE THE {thing} {place}",
)
SLOTS = {
    "person": PEOPLE,
    "owner": PEOPLE,
    "verb": ("CARRIED", "FOUND", "PAINTED", "WANTED", "WATCHED", "FORGOT", "BORROWED", "WASHED"),
    "thing": ("BASKET", "LETTER", "BICYCLE", "YELLOW COAT", "KITCHEN TABLE", "PIANO", "GARDEN CHAIR", "LITTLE BOAT"),
    "place": ("BY THE RIVER", "BEHIND THE CHURCH", "AT THE STATION", "UNDER THE BRIDGE", "NEAR THE HARBOUR"),
    "time": ("THIS MORNING", "LAST NIGHT", "BEFORE BREAKFAST", "ON SUNDAY", "IN THE RAIN", "AFTER SCHOOL"),
}


@dataclass(frozen=True)
class Speaker:
    """One person: a number, an espeak-ng voice with its variant, a pitch (0 to 99) and a speed (words per minute)."""

    speaker: int
    voice: str
    pitch: int
    speed: int

    def __post_init__(self) -> None:
        require(self.speaker > 0, "speaker must be a positive number.")
        require(0 <= self.pitch <= 99, "pitch must be 0 to 99.")
        require(80 <= self.speed <= 450, "speed must be 80 to 450 words per minute.")


@dataclass(frozen=True)
class Split:
    """The speakers of one split and how many utterances each of them speaks."""

    utterances_per_speaker: int
    speakers: tuple[Speaker, ...]

    def __post_init__(self) -> None:
        require(1 <= self.utterances_per_speaker <= 9999, "utterances_per_speaker must be 1 to 9999.")
        require(len(self.speakers) >= 1, "speakers must name at least one.")


@dataclass(frozen=True)
class SpeechSample:
    """``sample.speech``: who speaks, how much, and what."""

    seed: int
    sentence_share: float
    longest_digit_string: int
    utterances_per_chapter: int
    train: Split
    dev: Split
    test: Split

    def __post_init__(self) -> None:
        require(0 <= self.sentence_share <= 1, "sentence_share must be 0 to 1.")
        require(1 <= self.longest_digit_string <= 20, "longest_digit_string must be 1 to 20 words.")
        require(1 <= self.utterances_per_chapter <= 9999, "utterances_per_chapter must be 1 to 9999.")
        numbers = [speaker.speaker for split in self.splits().values() for speaker in split.speakers]
        require(len(set(numbers)) == len(numbers), "train, dev and test must not share a speaker number.")

    def splits(self) -> dict[str, Split]:
        """Return the splits by the names of their folders."""
        return {"train-sample": self.train, "dev-sample": self.dev, "test-sample": self.test}


def write() -> None:
    """Write data/raw/speech/SPLIT/SPEAKER/CHAPTER/: 16-bit FLAC files (22,050 Hz) and their transcripts."""
    config = params.read(SpeechSample, "sample.speech")
    with publish_folder(FOLDER) as folder:
        tasks = []
        for name, split in config.splits().items():
            for speaker in split.speakers:
                tasks += plan(folder / name, speaker, split.utterances_per_speaker, config)
        for _ in progress.track(in_processes(record, tasks), "speech", len(tasks), unit="utterances"):
            pass


def plan(folder: Path, speaker: Speaker, count: int, config: SpeechSample) -> list[tuple[Path, str, Speaker]]:
    """Write the transcripts of one speaker below ``folder``; return (file, transcript, speaker) per utterance."""
    tasks = []
    for index in range(count):
        chapter = f"{speaker.speaker}{index // config.utterances_per_chapter:03d}"
        name = f"{speaker.speaker}-{chapter}-{index % config.utterances_per_chapter:04d}"
        home = folder / str(speaker.speaker) / chapter
        home.mkdir(parents=True, exist_ok=True)
        words = transcript(config, name)
        with (home / f"{speaker.speaker}-{chapter}.trans.txt").open("a") as lines:
            lines.write(f"{name} {words}\n")
        tasks.append((home / f"{name}.flac", words, speaker))
    return tasks


def transcript(config: SpeechSample, name: str) -> str:
    """Return what is said in the utterance ``name``: a string of digits or a short sentence."""
    key = (config.seed, "speech", name)
    if fraction(*key, "kind") < config.sentence_share:
        return sentence(*key)
    length = 1 + int(fraction(*key, "length") * config.longest_digit_string)
    return " ".join(pick(DIGITS, *key, position) for position in range(length))


def sentence(*key: object) -> str:
    """Return a short sentence in the letters A to Z, the apostrophe and the space."""
    words = {slot: pick(options, *key, slot) for slot, options in SLOTS.items()}
    return pick(SENTENCES, *key, "pattern").format(**words)


def record(path: Path, words: str, speaker: Speaker) -> None:
    """Speak ``words`` into a FLAC file; once per process (see ``espeak``)."""
    samples, rate = espeak.speak(words.lower(), speaker.voice, speaker.pitch, speaker.speed)
    with soundfile.SoundFile(path, "w", rate, 1, "PCM_16") as file:
        file.buffer_write(samples, dtype="int16")


def in_processes(work: Callable[..., None], tasks: Iterable[tuple]) -> Iterator[tuple]:
    """Yield every one of ``tasks``, in order, once ``work(*task)`` has run in a process forked for it alone."""
    fork = multiprocessing.get_context("fork")
    running: deque = deque()
    try:
        for task in tasks:
            if len(running) > (os.cpu_count() or 1):
                yield finished(*running.popleft())
            receiver, sender = fork.Pipe(duplex=False)
            process = fork.Process(target=attempt, args=(sender, work, task))
            process.start()
            sender.close()
            running.append((process, receiver, task))
        while running:
            yield finished(*running.popleft())
    finally:
        for process, *_ in running:
            process.join()


def attempt(sender: Connection, work: Callable[..., None], task: tuple) -> None:
    """Do ``work(*task)`` and send what the person must read: nothing, or the sentence of a UserError."""
    problem = None
    try:
        work(*task)
    except UserError as error:
        problem = str(error)
    sender.send(problem)


def finished(process: multiprocessing.Process, receiver: Connection, task: tuple) -> tuple:
    """Wait for ``process`` and return ``task``; raise UserError when it failed."""
    try:
        problem = receiver.recv()
    except EOFError:
        problem = f"{task[0]} could not be written; the process that speaks it died."
    process.join()
    receiver.close()
    if problem:
        raise UserError(problem)
    return task
