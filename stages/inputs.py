"""What a person names on the command line → single inputs: files, what is in folders and archives, lines of text."""

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from d2v_core.errors import Dropped, UserError
from stages import sources
from stages.archives import unpacked
from stages.layouts import Record
from stages.layouts.files import ARRAYS, AUDIO, DOCUMENTS, IMAGES

STDIN = "-"


@dataclass(frozen=True)
class Input:
    """One input: where it is, its line there if it is text, and what ``readers.read`` takes or why there is none."""

    path: str
    line: int | None
    record: Record | Dropped

    @property
    def name(self) -> str:
        """What a person calls it."""
        return printable(self.path if self.line is None else f"{self.path}:{self.line}")


def printable(path: str) -> str:
    """Return ``path`` with escapes where it is not UTF-8."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def find_inputs(names: Sequence[str], table: object, pairs: bool) -> Iterator[Input]:
    """Yield the inputs that ``names`` stand for, as soon as they are known; ``table`` says of which kind they are.

    ``-`` stands for the lines of standard input: texts, or else names of files. Of a folder or an archive those files
    are taken whose suffix fits. With ``pairs`` a line holds two texts with a tab between them.
    """
    if hasattr(table, "tokens"):
        for location in files(names, DOCUMENTS):
            yield from [location] if isinstance(location, Input) else texts(location, pairs)
        return
    suffixes = (*(AUDIO if hasattr(table, "sample_rate") else IMAGES), *ARRAYS)
    for location in files(given(names), suffixes):
        yield location if isinstance(location, Input) else Input(location, None, record(location))


def record(path: str | None, text: str | None = None, pair: str | None = None) -> Record:
    """Return the record of an input, as a layout would give it."""
    return {"id": path, "path": path, "split": "test", "label": None, "text": text, "pair": pair}


def given(names: Sequence[str]) -> Iterator[str]:
    """Yield ``names``, and in place of ``-`` those in the lines of standard input."""
    for name in names:
        yield from (os.fsdecode(line.rstrip(b"\r\n")) for line in sys.stdin.buffer) if name == STDIN else [name]


def files(names: Iterator[str] | Sequence[str], suffixes: Sequence[str]) -> Iterator[str | Input]:
    """Yield the location of every file, and an Input with the reason for a folder or archive that holds none.

    A name that ends in ``/`` is a folder, also at a URL; what is inside an archive is named ``ARCHIVE.tar!/MEMBER``.
    """
    for name in names:
        if not os.path.isdir(name) and not name.lower().endswith((*sources.ARCHIVES, "/")):
            yield name
            continue
        try:
            found = [place for place in sources.listing(name).values() if place.lower().endswith(tuple(suffixes))]
        except Exception as error:  # file systems behind URLs raise anything
            yield Input(name, None, unreadable(error))
            continue
        yield from found
        if not found:
            yield Input(name, None, Dropped("empty", f"no file there ends in {', '.join(suffixes)}"))


def texts(location: str, pairs: bool) -> Iterator[Input]:
    """Yield the lines of a file, unpacked by its suffix, or of standard input."""
    try:
        for number, line in enumerate(open_lines(location), 1):
            yield Input(location, number, read_line(line.rstrip(b"\r\n"), pairs))
    except Exception as error:  # file systems behind URLs raise anything
        yield Input(location, None, unreadable(error))


def unreadable(error: Exception) -> Dropped:
    """Return why there is nothing at a place that could not be read."""
    if isinstance(error, Dropped):
        return error
    said = str(error).rstrip(".") if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
    return Dropped("unreadable", said)


def open_lines(location: str) -> BinaryIO:
    """Return the bytes at a location, or standard input, for reading by lines."""
    return sys.stdin.buffer if location == STDIN else unpacked(location, lambda: sources.open_file(location))


def read_line(line: bytes, pairs: bool) -> Record | Dropped:
    """Return the record of one line, or why there is none."""
    try:
        text = line.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return Dropped("unreadable", f"not UTF-8 at byte {error.start}")
    first, tab, second = text.partition("\t")
    if pairs and not tab:
        return Dropped("no pair", "there is no tab between two texts")
    return record(None, first, second) if pairs else record(None, text)
