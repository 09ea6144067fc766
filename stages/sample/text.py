"""Prose that CPython carries, its language reference: plain text to learn from, and a task from the same text.

The text is that of the Python which runs this: another version of Python gives a slightly different corpus.
"""

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from pydoc_data.topics import topics

from d2v_core.config import require
from d2v_core.data.files import publish_folder
from stages import params
from stages.sample import fraction

FOLDER = Path("data/raw/text")
TOPICS_FOLDER = Path("data/raw/topics")
UNDERLINE = re.compile(r"^([*=~-])\1+\n?", re.MULTILINE)
BLANK_LINES = re.compile(r"\n\s*\n")

GROUPS = {
    "strings": "strings string-methods formatstrings conversions atom-literals",
    "containers": """typesseq typesseq-mutable typesmapping sequence-types lists dict slicings subscriptions in
        exprlists""",
    "operators": """operator-summary binary unary bitwise shifting power comparisons booleans truth numbers integers
        floating imaginary numeric-types""",
    "binding": """naming execmodel dynamic-features identifiers atom-identifiers assignment augassign del global
        nonlocal import function calls lambda""",
    "classes": "class customization specialnames specialattrs id-classes attribute-access attribute-references",
    "objects": """objects types typesfunctions typesmethods typesmodules callable-types bltin-code-objects
        bltin-ellipsis-object bltin-null-object bltin-type-objects""",
    "control": "if else while for break continue pass return yield await async with context-managers compound",
    "errors": "debugger exceptions try raise assert",
}


@dataclass(frozen=True)
class TextSample:
    """``sample.text``: shares of the paragraphs (train has the rest), lengths of a sentence in words."""

    seed: int
    valid_share: float
    test_share: float
    shortest_sentence: int
    longest_sentence: int

    def __post_init__(self) -> None:
        require(0 < self.valid_share < 1, "valid_share must be between 0 and 1.")
        require(0 < self.test_share < 1 - self.valid_share, "test_share must be above 0 and leave a share for train.")
        require(self.shortest_sentence >= 1, "shortest_sentence must be at least 1 word.")
        require(self.shortest_sentence <= self.longest_sentence, "longest_sentence is below shortest_sentence.")


def write() -> None:
    """Write data/raw/text/{train,valid,test}/TOPIC.txt in UTF-8, with a blank line between paragraphs."""
    config = params.read(TextSample, "sample.text")
    files = defaultdict(list)
    for topic, paragraph in paragraphs():
        files[split_of(paragraph, config), topic].append(paragraph)
    with publish_folder(FOLDER) as folder:
        for (split, topic), texts in files.items():
            (folder / split).mkdir(exist_ok=True)
            (folder / split / f"{topic}.txt").write_text("\n\n".join(texts) + "\n", encoding="utf-8")


def write_topics() -> None:
    """Write data/raw/topics/{train,dev,test}.tsv in UTF-8: which of eight groups of topics is a paragraph from?

    The splits are those of ``write``: no text of dev or test is in the plain text to pretrain on.
    """
    config = params.read(TextSample, "sample.text")
    group_of = {topic: group for group, names in GROUPS.items() for topic in names.split()}
    rows: dict[str, list[str]] = {"train": [], "valid": [], "test": []}
    for topic, paragraph in paragraphs():
        words = paragraph.split()
        if topic in group_of and sum(map(has_letter, words)) >= config.shortest_sentence:
            sentence = " ".join(words[: config.longest_sentence])
            rows[split_of(paragraph, config)].append(f"{sentence}\t{group_of[topic]}\n")
    with publish_folder(TOPICS_FOLDER) as folder:
        for split, name in (("train", "train"), ("valid", "dev"), ("test", "test")):
            (folder / f"{name}.tsv").write_text("sentence\tlabel\n" + "".join(rows[split]), encoding="utf-8")


def paragraphs() -> Iterator[tuple[str, str]]:
    """Yield (topic, paragraph), without the paragraphs that are a part of another one.

    Topics repeat each other; what two of them share is counted as the shorter one's.
    """
    found: dict[str, tuple[str, str]] = {}
    for topic in sorted(topics, key=lambda name: (len(topics[name]), name)):
        for paragraph in BLANK_LINES.split(UNDERLINE.sub("", topics[topic])):
            found.setdefault(normal(paragraph), (topic, paragraph.strip("\n").rstrip()))
    everything = "\n".join(f" {words} " for words in found)
    yield from (pair for words, pair in found.items() if words and everything.count(f" {words} ") == 1)


def split_of(paragraph: str, config: TextSample) -> str:
    """Return the split of a paragraph: its words and the seed alone decide."""
    place = fraction(config.seed, "text", normal(paragraph))
    if place < config.test_share:
        return "test"
    return "valid" if place < config.test_share + config.valid_share else "train"


def normal(paragraph: str) -> str:
    """Return the words of a paragraph with single spaces: two paragraphs are the same when these are."""
    return " ".join(paragraph.split())


def has_letter(word: str) -> bool:
    """Say whether ``word`` has a letter: signs and numbers alone do not make a sentence."""
    return any(character.isalpha() for character in word)
