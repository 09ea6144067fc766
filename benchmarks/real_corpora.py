"""Lay out real corpora for the recipes of ``recipes/real``: ``python -m benchmarks.real_corpora CORPORA``.

CORPORA holds ``vision/cifar10-jpeg.tar.xz``, ``speech/fsdd.tar.xz``, ``speech/LibriSpeech``, ``text/gutenberg``,
``text/glue/SST-2``, ``text/glue/CoLA`` and ``text/banking77``.
Writes ``data/raw/real``: links to them, recordings at other speeds, and tables that say what is for training, for
choosing (valid) and for reporting (test). docs/real.md says why each split is as it is.
"""

import csv
import io
import random
import tarfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import soundfile
import soxr

from stages import runner

RAW = Path("data/raw/real")
DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
SPEEDS = 0.87, 1.0, 1.15  # of recordings to pretrain on
RATE = 8000  # Hz
HELD_OUT = {"theo": "valid", "nicolas": "test"}  # speakers of FSDD
LABELLED = 1000  # training images of a class that keep their labels
VALID_IMAGES = 4800  # training images of a class before those for choosing
TEST_IMAGES = range(200, 500)  # of a class, in the order of their names; settings were once looked at on the first 200
VALID_REVIEWS, VALID_QUESTIONS = 1000, 10  # sentences of SST-2; questions of each intent of BANKING77
LEAST_WORDS = 8  # of a review sentence for choosing
LEAST_PRETRAINING_WORDS = 4
VALID_SENTENCES = 1000  # of CoLA
COLA = ("source", "label", "mark", "sentence")  # its files have no header
Rows = list[dict[str, str]]


def main(corpora: str) -> None:
    """Write everything for the three modalities."""
    source, rng = Path(corpora).resolve(), random.Random(1)
    images(source / "vision/cifar10-jpeg.tar.xz")
    speech(source / "speech/fsdd.tar.xz", source / "speech/LibriSpeech")
    text(source / "text", rng)


def images(archive: Path) -> None:
    """Write ``cifar`` (48,000 images to pretrain on) and ``cifar-labels`` (1,000 a class, and those held out)."""
    with tarfile.open(archive) as members:
        names = sorted(member.name for member in members if member.isfile())
    pretraining, labelled, seen = [], [], Counter()
    for name in names:
        _, part, label, _ = name.split("/")
        place = seen[part, label]
        seen[part, label] += 1
        row = {"path": name, "label": label, "split": part}
        if part == "train" and place < VALID_IMAGES:
            pretraining.append(row)
            labelled += [row] if place < LABELLED else []
        elif part == "train" or place in TEST_IMAGES:
            row["split"] = "valid" if part == "train" else "test"
            labelled.append(row)
            pretraining += [row] if place in (VALID_IMAGES, VALID_IMAGES + 1, 200, 201) else []
    for folder, rows in (("cifar", pretraining), ("cifar-labels", labelled)):
        link(RAW / folder, [archive])
        write(RAW / folder / "manifest.tsv", rows)


def speech(archive: Path, libri: Path) -> None:
    """Write ``digits`` (FSDD by speaker), ``libri``, and ``speech`` (to pretrain on)."""
    with tarfile.open(archive) as members:
        recordings = read(io.TextIOWrapper(members.extractfile("fsdd/splits.tsv"), "utf-8"))
    digits = [
        {
            "path": f"fsdd/recordings/{Path(row['file']).name}",
            "text": DIGITS[int(row["digit"])].upper(),
            "label": DIGITS[int(row["digit"])],
            "speaker": row["speaker"],
            "split": HELD_OUT.get(row["speaker"], "train"),
        }
        for row in recordings
    ]
    read_aloud = spoken(libri)
    link(RAW / "digits", [archive])
    write(RAW / "digits/manifest.tsv", digits)
    link(RAW / "speech", [archive])
    unlabelled = [row | {"label": ""} for row in digits]
    heard = [row for row in unlabelled + read_aloud if row["split"] == "train"]
    few = [row for row in unlabelled if row["split"] != "train"]
    write(RAW / "speech/manifest.tsv", faster_and_slower(heard, archive, libri) + few[:4] + few[-4:])
    link(RAW / "libri", [libri])
    write(RAW / "libri/manifest.tsv", read_aloud)


def faster_and_slower(rows: Rows, archive: Path, libri: Path) -> Rows:
    """Write recordings at several speeds, by which a voice is lower or higher too; return their rows."""
    with tarfile.open(archive) as members:
        digits = {member.name: members.extractfile(member).read() for member in members if member.isfile()}
    copies = []
    for number, row in enumerate(rows):
        source = io.BytesIO(digits[row["path"]]) if row["path"] in digits else libri.parent / row["path"]
        wave, rate = soundfile.read(source, dtype="float64")
        for speed in SPEEDS:
            copy = soxr.resample(wave, rate * speed, RATE) if rate * speed != RATE else wave
            path = f"audio/{number}-{speed}.wav"
            (RAW / "speech/audio").mkdir(parents=True, exist_ok=True)
            soundfile.write(RAW / "speech" / path, copy / max(1.0, 1.0001 * np.abs(copy).max()), RATE, "PCM_16")
            copies.append(row | {"path": path})
    return copies


def spoken(libri: Path) -> Rows:
    """Return LibriSpeech's utterances with their words; no speaker is in two splits."""
    lines = (line for path in sorted(libri.glob("*/*/*/*.trans.txt")) for line in path.read_text().splitlines())
    words = {key: said for key, _, said in (line.partition(" ") for line in lines)}
    rows = []
    for row in read((libri / "splits.tsv").open()):
        speaker, chapter, _ = row["utt_id"].split("-")
        path = f"LibriSpeech/train-clean-5/{speaker}/{chapter}/{row['utt_id']}.flac"
        said = words[row["utt_id"]]
        rows.append({"path": path, "text": said, "label": "", "speaker": f"libri-{speaker}", "split": row["split"]})
    return rows


def text(source: Path, rng: random.Random) -> None:
    """Write ``sst2``, ``banking77``, ``cola``, ``sentences`` (what the former train on) and ``text`` (novels too)."""
    train, valid = separate(read((source / "glue/SST-2/train.tsv").open()), rng)
    dev = read((source / "glue/SST-2/dev.tsv").open())
    for name, rows in (("train", train), ("dev", valid), ("test", dev)):
        labels = ("negative", "positive")
        named = [{"sentence": row["sentence"].strip(), "label": labels[int(row["label"])]} for row in rows]
        write(RAW / "sst2" / f"{name}.tsv", named)
    questions = list(csv.DictReader((source / "banking77/train.csv").open(newline="")))
    rng.shuffle(questions)
    seen, parts = Counter(), {"train": [], "dev": []}
    for row in questions:
        seen[row["category"]] += 1
        parts["dev" if seen[row["category"]] <= VALID_QUESTIONS else "train"].append(row)
    parts["test"] = list(csv.DictReader((source / "banking77/test.csv").open(newline="")))
    for name, rows in parts.items():
        named = [{"sentence": " ".join(row["text"].split()), "label": row["category"]} for row in rows]
        write(RAW / "banking77" / f"{name}.tsv", named)
    for part in ("train", "valid", "test"):
        link(RAW / "text" / part, sorted((source / "gutenberg" / part).glob("*.txt")))
    sentences = [row["sentence"].strip() for row in train if len(row["sentence"].split()) >= LEAST_PRETRAINING_WORDS]
    rng.shuffle(sentences)
    documents = {"sst2": sentences, "banking77": [" ".join(row["text"].split()) for row in parts["train"]]}
    for name, paragraphs in documents.items():
        (RAW / "text/train" / f"{name}.txt").write_text("\n\n".join(paragraphs) + "\n")
    alone = [{"sentence": sentence, "label": ""} for sentence in longest(sentences) + documents["banking77"]]
    write(RAW / "sentences/train.tsv", alone)
    grammar(source / "glue/CoLA", rng)


def grammar(folder: Path, rng: random.Random) -> None:
    """Write ``cola``: valid is drawn from its training sentences, test is its dev part."""
    found = {}
    for part in ("train", "dev"):
        rows = csv.DictReader((folder / f"{part}.tsv").open(), COLA, delimiter="\t", quoting=csv.QUOTE_NONE)
        found[part] = [{"sentence": row["sentence"].strip(), "label": row["label"]} for row in rows]
    rng.shuffle(found["train"])
    parts = {"train": found["train"][VALID_SENTENCES:], "dev": found["train"][:VALID_SENTENCES], "test": found["dev"]}
    for name, rows in parts.items():
        write(RAW / "cola" / f"{name}.tsv", rows)


def longest(sentences: Iterable[str]) -> list[str]:
    """Return the sentences that are no run of words of another one, the longest first."""
    seen: set[str] = set()
    kept = []
    for sentence in sorted(set(sentences), key=lambda sentence: (-len(sentence.split()), sentence)):
        if " ".join(sentence.split()) not in seen:
            kept.append(sentence)
            seen |= runs(sentence, LEAST_PRETRAINING_WORDS)
    return kept


def separate(rows: Rows, rng: random.Random) -> tuple[Rows, Rows]:
    """Return SST-2's phrases that share no sentence with those for choosing, and those."""
    long = [row for row in rows if len(row["sentence"].split()) >= LEAST_WORDS]
    rng.shuffle(long)
    valid = long[:VALID_REVIEWS]
    whole = {" ".join(row["sentence"].split()) for row in valid}
    parts = {part for sentence in whole for part in runs(sentence, 1)}

    def apart(row: Mapping[str, str]) -> bool:
        sentence = " ".join(row["sentence"].split())
        return sentence not in parts and whole.isdisjoint(runs(sentence, LEAST_WORDS))

    return [row for row in rows if apart(row)], valid


def runs(sentence: str, least: int) -> set[str]:
    """Return every run of at least ``least`` words of ``sentence``."""
    words = sentence.split()
    return {" ".join(words[i:j]) for i in range(len(words)) for j in range(i + least, len(words) + 1)}


def read(lines: Iterable[str]) -> Rows:
    """Return the rows of a table with tabs and without quoting."""
    return list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))


def link(folder: Path, targets: Sequence[Path]) -> None:
    """Link ``targets`` into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    for target in targets:
        if not (folder / target.name).exists():
            (folder / target.name).symlink_to(target)


def write(path: Path, rows: Rows) -> None:
    """Write ``rows`` with tabs and without quoting."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ["\t".join(rows[0]), *("\t".join(row.values()) for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    runner.call(main)
