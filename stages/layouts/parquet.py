"""Parquet and Arrow files as Hugging Face's hub has them: bytes of audio and images, texts, labels by number."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from d2v_core.errors import UserError
from stages import sources
from stages.cells import Arrow, Parquet
from stages.layouts.config import CorpusConfig
from stages.layouts.files import COLUMNAR, Files, Record, part_of, stem
from stages.layouts.tables import CATEGORIES, ITEMS, SENTENCES, SPEAKERS, SPLIT_NAMES, named, spelled

ROWS_AT_ONCE = 4096
Batches = Callable[[list[str]], Iterable]  # names of columns → record batches


@dataclass(frozen=True)
class Columns:
    """Names of the columns that hold what a record says, None for what the file does not have."""

    content: str | None
    text: str | None
    pair: str | None
    label: str | None
    score: str | None
    group: str | None
    part: str | None
    item: str | None


def parquet(files: Files, corpus: CorpusConfig, documents: bool = False) -> Iterator[Record]:
    """Read ``[<part>/]<part>-00000-of-00001.parquet`` or ``.arrow``, a row an item.

    A column of bytes, or of structs {bytes, path}, is the item; without one its text is, as a sentence or, for
    ``documents``, as a document that is read when it is needed.
    """
    for name, location in files.having(COLUMNAR):
        with guarded(location):
            schema, batches = open_rows(location)
        columns = choose(schema, corpus, location, documents)
        names = class_names(schema, columns.label)
        words = [part_of(word, corpus.parts) for word in stem(name).split("/")]
        part = next(filter(None, reversed(words)), None)
        wanted = [each for field, each in vars(columns).items() if each and field != "content"]
        for number, row in enumerate(rows(location, batches, wanted)):
            item = spelled(row.get(columns.item)) or f"{stem(name)}-{number:07d}"
            yield record_of(row, columns, names, corpus) | {
                "id": item,
                "path": f"{location}#{number}/{columns.content}" if columns.content else None,
                "part": spelled(row.get(columns.part)) or part,
                "group": spelled(row.get(columns.group)) or item,
            }


def record_of(row: Mapping, columns: Columns, names: list[str] | None, corpus: CorpusConfig) -> Record:
    """Return what a row says of an item beside where it is; labels are spelled by ``names`` where there are any."""
    return {
        "label": named(numbered(row.get(columns.label), names), corpus),
        "text": spelled(row.get(columns.text)),
        "pair": spelled(row.get(columns.pair)),
        "score": spelled(row.get(columns.score)),
    }


def numbered(label: object, names: list[str] | None) -> object:
    """Return the name of a label that is a number, or of several in a list; None for a number without a name."""
    if isinstance(label, list):
        return [name for name in (numbered(each, names) for each in label) if name is not None]
    if names and isinstance(label, int):
        return names[label] if 0 <= label < len(names) else None
    return label


def choose(schema: Any, corpus: CorpusConfig, location: str, documents: bool) -> Columns:
    """Return which columns of a file hold what; raise UserError when it lacks what ``corpus`` names, or has nothing."""
    fields = {field.name: field.type for field in schema}
    media = next((name for name, kind in fields.items() if holds_bytes(kind)), None)
    named = [corpus.path, corpus.sentence, corpus.pair, corpus.category, corpus.score, corpus.speaker, corpus.part]
    for column in filter(None, named):
        if column not in fields:
            raise UserError(f"{location} has no column {column!r}; it has {', '.join(map(repr, fields))}.")
    usual = {key: next((name for name in names if name in fields), None) for key, names in USUAL.items()}
    text = corpus.sentence or usual["text"]
    content = text if documents else corpus.path or media
    if not content and not text:
        raise UserError(f"{location} has neither bytes nor text; set `path` or `sentence` to the name of a column.")
    return Columns(
        content=content,
        text=None if documents else text,
        pair=corpus.pair or None,
        label=None if documents or corpus.score else corpus.category or usual["label"],
        score=corpus.score or None,
        group=corpus.speaker or usual["group"],
        part=corpus.part or usual["part"],
        item=usual["item"],
    )


USUAL = {"text": SENTENCES, "label": CATEGORIES, "group": SPEAKERS, "part": SPLIT_NAMES, "item": ITEMS}


def holds_bytes(kind: Any) -> bool:
    """Tell whether a column of this type holds files: bytes, or structs with a field ``bytes``."""
    import pyarrow as pa

    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def class_names(schema: Any, column: str | None) -> list[str] | None:
    """Return the names that Hugging Face wrote down for the numbers of a label, None if there are none."""
    try:
        written = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"][column]
        written = written[0] if isinstance(written, list) else written.get("feature", written)
        return written["names"]
    except (KeyError, ValueError, TypeError, AttributeError, IndexError):
        return None


def open_rows(location: str) -> tuple[Any, Batches]:
    """Return the schema of a file and a function from names of columns to its record batches."""
    table = sources.kept(sources.open_table, location)
    if isinstance(table, Parquet):
        return table.file.schema_arrow, lambda columns: table.file.iter_batches(ROWS_AT_ONCE, columns=columns)
    assert isinstance(table, Arrow)
    return table.table.schema, lambda columns: checked(table, columns).to_batches(ROWS_AT_ONCE)


def checked(table: Arrow, columns: list[str]) -> Any:
    """Return some columns of an Arrow file, each of them checked."""
    for column in columns:
        table.column(column)
    return table.table.select(columns)


def rows(location: str, open_batches: Batches, columns: list[str]) -> Iterator[dict]:
    """Yield the rows of a file with some of its columns."""
    with guarded(location):
        batches = iter(open_batches(columns))
    while True:
        with guarded(location):
            batch = next(batches, None)
            found = [] if batch is None else batch.to_pylist() if columns else [{}] * batch.num_rows
        if batch is None:
            return
        yield from found


@contextmanager
def guarded(location: str) -> Iterator[None]:
    """Raise UserError for whatever a damaged file makes pyarrow raise: it may be anything."""
    try:
        yield
    except Exception as error:
        raise UserError(f"{location} cannot be read ({error}); fetch it again.") from None
