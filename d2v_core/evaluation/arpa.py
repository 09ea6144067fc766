"""ARPA files, the common form of n-gram models: read and written as text or gzip.

Probabilities and back-off weights are log10. ``<UNK>``, as LibriSpeech's own models spell it, is ``<unk>``; a model
that lists no unknown word gives it 10⁻¹⁰⁰, as KenLM does.
"""

import gzip
import io
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np

from d2v_core.data.files import publish
from d2v_core.errors import UserError
from d2v_core.evaluation.ngram import BEGIN, END, UNKNOWN, Grams, NGram, pack

LINES_AT_ONCE = 65536
ABSENT = -100.0
NEVER = -99.0  # log10 of a probability of zero, as it is written for <s>


def read_arpa(path: Path) -> NGram:
    """Return the model in the ARPA file at ``path``; one whose name ends in .gz is unpacked.

    Raises UserError when the file is missing, damaged or not in this form.
    """
    try:
        with open_bytes(path) as lines:
            return parse(iter(lines))
    except FileNotFoundError:
        raise UserError(f"{path} is missing; train a language model or correct the path.") from None
    except (ValueError, EOFError, OSError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path} is not a whole ARPA file ({reason}); make or download it again.") from None


def open_bytes(path: Path) -> gzip.GzipFile | io.BufferedReader:
    """Open a file, unpacked when its name ends in .gz, for reading bytes."""
    return gzip.open(path) if Path(path).suffix == ".gz" else Path(path).open("rb")


def parse(lines: Iterator[bytes]) -> NGram:
    """Return the model in the lines of an ARPA file; raise ValueError or KeyError for a line that does not fit."""
    counts = read_counts(lines)
    numbers: dict[bytes, int] = {}
    tables = []
    for length, count in enumerate(counts, 1):
        section = next((line.strip() for line in lines if line.strip()), b"its end")
        if section != b"\\%d-grams:" % length:
            raise ValueError(f"\\{length}-grams: should come where {section.decode(errors='replace')!r} is")
        tables.append(read_section(lines, length, count, numbers))
    if next((line.strip() for line in lines if line.strip()), b"") != b"\\end\\":
        raise ValueError("\\end\\ does not follow the counted n-grams")
    words = [word.decode("utf-8") for word in numbers]
    for symbol in (BEGIN, END):
        if symbol not in words:
            raise ValueError(f"{symbol} is not among its words")
    if UNKNOWN not in words:
        words.append(UNKNOWN)
        first = tables[0]
        unknown = np.array([[len(words) - 1]])
        tables[0] = Grams(
            np.concatenate([first.words, unknown]),
            np.append(first.log_probability, np.float32(ABSENT)),
            np.append(first.back_off, np.float32(0)),
        )
    return pack(words, tables)


def read_counts(lines: Iterator[bytes]) -> list[int]:
    """Return how many n-grams of each length the header announces."""
    if not any(line.strip() == b"\\data\\" for line in lines):
        raise ValueError("there is no \\data\\ in it")
    counts: list[int] = []
    for line in lines:
        found = re.fullmatch(rb"ngram (\d+)\s*=\s*(\d+)", line.strip())
        if found and int(found[1]) == len(counts) + 1:
            counts.append(int(found[2]))
        elif line.strip():
            raise ValueError(f"{line.strip().decode(errors='replace')!r} is in its header")
        elif counts:
            return counts
    raise ValueError("it ends in its header")


def read_section(lines: Iterator[bytes], length: int, count: int, numbers: dict[bytes, int]) -> Grams:
    """Return the ``count`` n-grams of one length; the words of those of length 1 are added to ``numbers``."""
    words = np.empty((count, length), dtype=np.int64)
    values = np.zeros((2, count), dtype=np.float32)
    for start in range(0, count, LINES_AT_ONCE):
        wanted = min(LINES_AT_ONCE, count - start)
        rows = [line.split() for line in islice(lines, wanted)]
        if len(rows) < wanted or not {len(row) for row in rows} <= {length + 1, length + 2}:
            raise ValueError(f"a line under \\{length}-grams: is not {length} words and one or two numbers")
        if length == 1:
            numbers.update((spelled(row[1]), start + place) for place, row in enumerate(rows))
            if len(numbers) < start + wanted:
                raise ValueError("a word is listed twice")
        part = slice(start, start + wanted)
        words[part] = [[numbers[spelled(word)] for word in row[1 : length + 1]] for row in rows]
        values[0, part] = [float(row[0]) for row in rows]
        values[1, part] = [float(row[length + 1]) if len(row) == length + 2 else 0.0 for row in rows]
    if not np.isfinite(values[1]).all() or np.isnan(values[0]).any():
        raise ValueError(f"a number under \\{length}-grams: is not finite")
    return Grams(words, np.maximum(values[0], ABSENT), values[1])


def spelled(word: bytes) -> bytes:
    """Return the one spelling of the unknown word, and any other word as it is."""
    return UNKNOWN.encode() if word == b"<UNK>" else word


def write_arpa(path: Path, model: NGram) -> None:
    """Publish ``model`` as an ARPA file at ``path``, packed when the name ends in .gz; the same bytes every time."""
    with publish(path) as temporary, temporary.open("wb") as raw:
        if Path(path).suffix == ".gz":
            with gzip.GzipFile("", "wb", 6, raw, mtime=0) as packed:
                packed.writelines(format_lines(model))
        else:
            raw.writelines(format_lines(model))


def format_lines(model: NGram) -> Iterator[bytes]:
    """Yield the lines of ``model`` as an ARPA file."""
    tables = model.grams()
    header = "\n".join(f"ngram {length}={len(table.words)}" for length, table in enumerate(tables, 1))
    yield f"\\data\\\n{header}\n".encode()
    for length, table in enumerate(tables, 1):
        yield f"\n\\{length}-grams:\n".encode()
        columns = (table.words.tolist(), table.log_probability.tolist(), table.back_off.tolist())
        for gram, log_probability, back_off in zip(*columns, strict=True):
            text = " ".join(model.words[number] for number in gram)
            last = f"\t{back_off:.8g}" if length < len(tables) else ""
            yield f"{log_probability:.8g}\t{text}{last}\n".encode()
    yield b"\n\\end\\\n"
