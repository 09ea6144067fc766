"""Single values of tables of rows: Parquet, Arrow and JSON lines, opened once and read in any order.

What is read last stays: the row group of Parquet, the map of an Arrow file.
"""

import json
from bisect import bisect_right
from collections.abc import Callable, Iterator
from itertools import accumulate
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO

from d2v_core.errors import Dropped


def open_cells(name: str, opener: Callable[[], BinaryIO], path: Path | None) -> "Parquet | Arrow | Lines":
    """Return the values of a table by (row, column), as bytes; ``path`` is where it is on this machine, if it is."""
    name = name.lower()
    if name.endswith(".parquet"):
        return Parquet(str(path) if path else opener())
    return Arrow(path, opener) if name.endswith(".arrow") else Lines(opener())


def content(value: object) -> bytes:
    """Return the bytes of a value: text, bytes, or the struct {bytes, path} of Hugging Face's data sets."""
    if isinstance(value, dict):
        value = value.get("bytes")
    if isinstance(value, str):
        return value.encode("utf-8", "replace")
    if not isinstance(value, bytes):
        raise Dropped("empty", "no content" if value is None else f"{type(value).__name__} is not text or bytes")
    return value


class Parquet:
    """A Parquet file; the columns of its last row group stay in memory."""

    def __init__(self, source: str | BinaryIO) -> None:
        from pyarrow.parquet import ParquetFile

        self.file, self.lock = ParquetFile(source), Lock()
        self.held: tuple[tuple[int, str], Any] | None = None
        groups = range(self.file.num_row_groups)
        self.starts = [0, *accumulate(self.file.metadata.row_group(group).num_rows for group in groups)]

    def __getitem__(self, place: tuple[int, str]) -> bytes:
        row, column = place
        group = bisect_right(self.starts, row) - 1
        with self.lock:
            if self.held is None or self.held[0] != (group, column):
                self.held = None
                self.held = ((group, column), self.file.read_row_group(group, columns=[column]).column(column))
            return content(self.held[1][row - self.starts[group]].as_py())


class Arrow:
    """An Arrow file or stream, mapped where it is on this machine."""

    def __init__(self, path: Path | None, opener: Callable[[], BinaryIO]) -> None:
        import pyarrow as pa

        source = pa.memory_map(str(path)) if path else pa.py_buffer(opener().read())
        try:
            self.table = pa.ipc.open_file(source).read_all()
        except pa.ArrowInvalid:
            if path:
                source.seek(0)
            self.table = pa.ipc.open_stream(source).read_all()
        self.checked: dict[str, Any] = {}

    def column(self, name: str) -> Any:
        """Return a column, checked once: what is damaged would end the process."""
        if name not in self.checked:
            self.table.column(name).validate(full=True)
            self.checked[name] = self.table.column(name)
        return self.checked[name]

    def __getitem__(self, place: tuple[int, str]) -> bytes:
        row, column = place
        return content(self.column(column)[row].as_py())


class Lines:
    """A file of JSON lines; a row is the byte at which its line begins."""

    def __init__(self, stream: BinaryIO) -> None:
        self.stream, self.lock = stream, Lock()

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        """Yield where every line begins, and the line; blank ones are left out."""
        self.stream.seek(0)
        place = 0
        for line in self.stream:
            if line.strip():
                yield place, line
            place += len(line)

    def __getitem__(self, place: tuple[int, str]) -> bytes:
        start, field = place
        with self.lock:
            self.stream.seek(start)
            line = self.stream.readline()
        return content(json.loads(line).get(field))
