"""Layouts in which a table of text says everything: .tsv, .csv and .jsonl with a column for what we want to know."""

import csv
import io
import json
import posixpath
from collections.abc import Iterator, Mapping
from typing import Any

from d2v_core.errors import UserError
from stages import sources
from stages.archives import DAMAGE, unpacked
from stages.layouts.config import CorpusConfig
from stages.layouts.files import DELIMITED, JSON_LINES, Files, Record, part_of, stem

MANIFESTS = ("manifest", "metadata")
PATHS = ("path", "file", "file_name", "filename", "audio", "image")
SENTENCES = ("text", "sentence", "transcription", "transcript")
CATEGORIES = ("label", "category")
SPEAKERS = ("speaker", "speaker_id", "client_id")
SPLIT_NAMES = ("split", "part", "official_split")
ITEMS = ("id", "utt_id")


def tsv(files: Files, corpus: CorpusConfig) -> Iterator[Record]:
    """Read ``<part>.tsv`` or ``.csv`` with a header; columns hold the text, perhaps a second one, label or score."""
    sentence, category = corpus.sentence or "sentence", corpus.score or corpus.category or "label"
    wanted = [sentence, *filter(None, [corpus.pair]), category]
    for name, location in files.having(DELIMITED):
        part = stem(name).rpartition("/")[2]
        for number, row in enumerate(read_delimited(location, corpus.encoding_errors)):
            if not row.keys() >= set(wanted) and part not in corpus.parts:
                break
            need(location, row, wanted, "set `sentence` and `category`, or leave it out of `parts`")
            item = f"{stem(name)}-{number:07d}"
            answer = {"score": row[category] or None} if corpus.score else {"label": named(row[category], corpus)}
            pair = row[corpus.pair] if corpus.pair else None
            yield {"id": item, "part": part, "group": item, "text": row[sentence], "pair": pair} | answer


def manifest_file(files: Files, corpus: CorpusConfig) -> Iterator[Record]:
    """Read a table that names files: ``manifest`` or ``metadata`` with any suffix, or one for each part (train.tsv).

    Names of files are relative to the table's folder, or are those of files without folders. An item without a file is
    its text; tables that name neither are passed over.
    """
    tables = list(files.having((*DELIMITED, *JSON_LINES)))
    chosen = [each for each in tables if stem(each[0]).rpartition("/")[2] in MANIFESTS]
    for name, location in chosen or tables:
        word = stem(name).rpartition("/")[2]
        part = None if chosen else part_of(word, corpus.parts)
        for number, row in enumerate(read_rows(location, corpus.encoding_errors)):
            if len(tables) > 1 and not row.keys() & {*PATHS, *SENTENCES, corpus.path, corpus.sentence}:
                break
            yield record_of(row, corpus, files, (name, part, number))


def record_of(row: Mapping, corpus: CorpusConfig, files: Files, place: tuple[str, str | None, int]) -> Record:
    """Return the record that a row of a manifest stands for; ``place``: the table's name and part, the row's number."""
    table, part, number = place
    where = files.locations[table]
    file = value(row, corpus.path, PATHS, where)
    words = value(row, corpus.sentence, SENTENCES, where)
    if not file and words is None:
        raise UserError(f"{where} names neither files nor texts; set `path` or `sentence` to the name of a column.")
    folder = table.rpartition("/")[0]
    name = posixpath.normpath(f"{folder}/{file}".lstrip("/")) if file else ""
    own = value(row, corpus.part, SPLIT_NAMES, where)
    item = value(row, "", ITEMS, where) or (stem(name) if file else f"{stem(table)}-{number:07d}")
    return {
        "id": item,
        "path": located(files, name, file) if file else None,
        "part": own or part or (part_of(name.partition("/")[0], corpus.parts) if file else None),
        "group": value(row, corpus.speaker, SPEAKERS, where) or item,
        "label": None if corpus.score else named(cell(row, corpus.category, CATEGORIES, where), corpus),
        "score": value(row, corpus.score, (), where) or None,
        "text": words,
        "pair": value(row, corpus.pair, (), where),
    }


def located(files: Files, name: str, file: str) -> str:
    """Return the location of the file that a manifest calls ``file``, or where it would be."""
    place = files.locations.get(name) or files.locations.get(file) or files.unique.get(file)
    if place or files.root.lower().endswith(sources.ARCHIVES):
        return place or f"{files.root}!/{name}"
    return file if file.startswith("/") or sources.URL.match(file) else f"{files.root.rstrip('/')}/{name}"


def value(row: Mapping, column: str, usual: tuple[str, ...], table: str) -> str | None:
    """Return as text what ``cell`` finds."""
    return spelled(cell(row, column, usual, table))


def cell(row: Mapping, column: str, usual: tuple[str, ...], table: str) -> object:
    """Return what a row holds in ``column``, or in the first usual one; raise UserError for a column not there."""
    if column and column not in row:
        raise UserError(f"{table} has no column {column!r}; it has {', '.join(map(repr, row))}.")
    return row.get(column or next((name for name in usual if name in row), ""))


def named(label: object, corpus: CorpusConfig) -> str | None:
    """Return a label as text, those of a list joined by ``separator``; None for no label.

    Raises UserError for a list where each item has one label, and for a name that would be torn apart.
    """
    if not isinstance(label, list):
        return spelled(label) or None
    names = [spelled(name) or "" for name in label]
    if not corpus.separator or any(corpus.separator in name for name in names):
        raise UserError(
            f"{corpus.raw} has items with several labels such as {names[:3]}; set `separator` to what is in none."
        )
    return corpus.separator.join(names) or None


def spelled(value: object) -> str | None:
    """Return ``value`` as text without halves of characters, None if it is None."""
    return None if value is None else str(value).encode("utf-8", "replace").decode()


def common_voice(files: Files, corpus: CorpusConfig) -> Iterator[Record]:
    """Read Common Voice: ``train.tsv``, ``dev.tsv``, ``test.tsv``, or ``validated.tsv`` alone, beside ``clips/``."""
    tables = [(name, location) for name, location in files.having((".tsv",))]
    parted = [each for each in tables if stem(each[0]).rpartition("/")[2] in corpus.parts]
    for name, location in parted or [each for each in tables if each[0].endswith("validated.tsv")]:
        folder, _, word = stem(name).rpartition("/")
        for row in read_delimited(location, corpus.encoding_errors):
            need(location, row, ("client_id", "path", "sentence"), "choose another layout")
            clip = row["path"] if stem(row["path"]) != row["path"] else f"{row['path']}.mp3"
            place = f"{folder}/clips/{clip}".lstrip("/")
            yield {
                "id": stem(place),
                "path": located(files, place, place),
                "part": word if parted else None,
                "group": row["client_id"],
                "text": row["sentence"],
            }


def need(table: str, row: Mapping, columns: tuple[str, ...] | list[str], remedy: str) -> None:
    """Raise UserError unless a row of ``table`` has all of ``columns``."""
    if not row.keys() >= set(columns):
        names = ", ".join(map(repr, columns[:-1])) + f" and {columns[-1]!r}"
        raise UserError(f"{table} has no columns {names} in its header; {remedy}.")


def read_rows(location: str, errors: str = "drop") -> Iterator[dict]:
    """Yield the rows of a .tsv, .csv or .jsonl file."""
    if location.lower().endswith(DELIMITED):
        yield from read_delimited(location, errors)
        return
    for number, line in enumerate(read_lines(location, errors), 1):
        try:
            row = json.loads(line) if line.strip() else None
        except ValueError as error:
            raise UserError(f"{location} has no JSON in line {number} ({error}); correct or remove it.") from None
        if isinstance(row, dict):
            yield row


def read_delimited(location: str, errors: str = "drop") -> Iterator[dict[str, str]]:
    """Yield the rows of a .tsv (no quoting) or .csv (quoting) file with a header."""
    style: dict[str, Any] = {"delimiter": "\t", "quoting": csv.QUOTE_NONE} if location.lower().endswith(".tsv") else {}
    try:
        yield from csv.DictReader(read_lines(location, errors), **style)
    except csv.Error as error:
        raise UserError(f"{location} is not a table with a header ({error}); correct or remove it.") from None


def read_lines(location: str, errors: str = "drop") -> Iterator[str]:
    """Yield the lines of a UTF-8 text file, compressed or not, with their ends.

    ``errors`` is the setting ``encoding_errors``; a table cannot be dropped in part, so "drop" refuses it.
    """
    strictness = "replace" if errors == "replace" else "strict"
    try:
        stream = unpacked(location, lambda: sources.open_file(location))
        with io.TextIOWrapper(stream, encoding="utf-8-sig", newline="", errors=strictness) as lines:
            yield from lines
    except UnicodeDecodeError as error:
        raise UserError(f"{location} is not UTF-8 text ({error}); convert or remove it.") from None
    except DAMAGE as error:
        raise UserError(f"{location} is damaged ({error}); fetch it again.") from None
