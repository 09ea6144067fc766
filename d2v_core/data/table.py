"""Tables of ready-to-train arrays: sharded, memory-mapped, uncompressed Arrow IPC files.

The *file* format is used because a cut-off *stream* file can read back silently short. A table is a folder with
``<split>-<shard>.arrow`` and an ``index.json`` that holds each shard's number of rows and digest.
"""

import hashlib
import io
import json
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from d2v_core.data.files import publish
from d2v_core.errors import UserError

INDEX = "index.json"
SPLITS = ("train", "valid", "test")
LABELS = pa.field("labels", pa.list_(pa.int32()))  # of tables whose items have several labels each, beside the others
Row = dict[str, Any]  # a value is a text, a number, an array or None


def schema(**arrays: pa.DataType) -> pa.Schema:
    """Return the columns of a modality's table: every table has ``id``, ``label`` and ``text``; arrays are lists."""
    common = [("id", pa.string()), ("label", pa.int32()), ("text", pa.string())]
    return pa.schema(common + [(name, pa.list_(kind)) for name, kind in arrays.items()])


class Rows:
    """The rows of a shard, gathered column by column; of lists of numbers the values alone are kept, end to end."""

    def __init__(self, columns: pa.Schema) -> None:
        self.schema, self.count = columns, 0
        self.columns: dict[str, Lists | list] = {
            each.name: Lists(each.type) if pa.types.is_list(each.type) else [] for each in columns
        }

    def __len__(self) -> int:
        return self.count

    def add(self, row: Row) -> None:
        """Add a row; what it does not name is null."""
        for name, column in self.columns.items():
            column.append(row.get(name))
        self.count += 1

    def write(self, sink: pa.NativeFile) -> None:
        """Write an Arrow file of one record batch."""
        arrays = [
            column.array() if isinstance(column, Lists) else pa.array(column, self.schema.field(name).type)
            for name, column in self.columns.items()
        ]
        with pa.ipc.new_file(sink, self.schema) as writer:
            writer.write_batch(pa.record_batch(arrays, schema=self.schema))


class Lists:
    """A column of lists of numbers that grows: no row is kept as an array of its own."""

    def __init__(self, kind: pa.ListType) -> None:
        self.kind, self.dtype = kind, kind.value_type.to_pandas_dtype()
        self.values, self.ends = io.BytesIO(), [0]
        self.missing: list[bool] = []

    def append(self, values: Sequence | np.ndarray | None) -> None:
        """Add a list; raises ArrowInvalid when the column cannot hold what is in it."""
        self.missing.append(values is None)
        given = () if values is None else values
        if not (isinstance(given, np.ndarray) and given.dtype == self.dtype):
            given = pa.array(given, self.kind.value_type).to_numpy(zero_copy_only=False)
        self.values.write(np.ascontiguousarray(given).data)
        self.ends.append(self.ends[-1] + len(given))

    def array(self) -> pa.ListArray:
        """Return the column."""
        buffers = [None, pa.py_buffer(self.values.getbuffer())]
        values = pa.Array.from_buffers(self.kind.value_type, self.ends[-1], buffers)
        missing = pa.array(self.missing) if any(self.missing) else None
        return pa.ListArray.from_arrays(pa.array(self.ends, pa.int32()), values, type=self.kind, mask=missing)


def write_shard(path: Path, columns: pa.Schema, rows: Iterable[Row]) -> dict[str, object]:
    """Write ``rows`` as one record batch and return the shard's entry for the index: rows and SHA-256."""
    gathered = Rows(columns)
    for row in rows:
        gathered.add(row)
    with publish(path) as temporary, pa.OSFile(str(temporary), "wb") as sink:
        gathered.write(sink)
    return {"rows": len(gathered), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def write_index(
    folder: Path,
    shards: Mapping[str, Mapping],
    classes: Sequence[str],
    symbols: int,
    settings: Mapping[str, object] | None = None,
) -> None:
    """Write what a table is: its shards, the names of its labels, how many symbols its vocabulary has, its settings."""
    content = index_of(dict(sorted(shards.items())), classes, symbols, settings)
    with publish(folder / INDEX) as temporary:
        temporary.write_text(content)


def index_of(
    shards: Mapping[str, Mapping], classes: Sequence[str], symbols: int, settings: Mapping[str, object] | None
) -> str:
    """Return the content of an index; ``settings`` is the block ``table`` with which the shards were made."""
    content = {"classes": list(classes), "symbols": symbols, "shards": dict(shards), "table": dict(settings or {})}
    return json.dumps(content, indent=1) + "\n"


@dataclass(frozen=True)
class Shard:
    """One mapped file: scalar columns as Arrow arrays, list columns as (offsets, values)."""

    scalars: dict[str, pa.Array]
    lists: dict[str, tuple[np.ndarray, np.ndarray]]
    rows: int


class Table:
    """One split of a table, read without copying: ``table[row]`` is a mapping of scalars and flat numpy views."""

    def __init__(self, folder: Path, split: str, columns: pa.Schema, settings: object = None) -> None:
        """Map the shards of ``split``.

        Raises UserError for a missing table, an empty split or another schema, and for a table that was made with
        other ``settings``, a modality's TableConfig, where they are given.
        """
        self.folder, self.split = Path(folder), split
        self.index = read_index(self.folder)
        if settings is not None:
            check_settings(self.folder, self.index, settings)
        names = [name for name in self.index["shards"] if name.startswith(f"{split}-")]
        self.shards = [open_shard(self.folder / name, columns) for name in names]
        self.starts = np.cumsum([0] + [shard.rows for shard in self.shards])
        if len(self) == 0:
            raise UserError(f"{self.folder} has no rows in its {split!r} split; check the corpus and `holdout`.")

    def __len__(self) -> int:
        return int(self.starts[-1])

    def __getitem__(self, row: int) -> Row:
        shard_number = bisect_right(self.starts, row) - 1
        shard, place = self.shards[shard_number], int(row - self.starts[shard_number])
        values = {name: array[place].as_py() for name, array in shard.scalars.items()}
        for name, (offsets, flat) in shard.lists.items():
            values[name] = flat[offsets[place] : offsets[place + 1]]
        return values

    def chunks(self, size: int) -> Iterator[list[Row]]:
        """Yield all rows in order, ``size`` at a time."""
        for start in range(0, len(self), size):
            yield [self[row] for row in range(start, min(start + size, len(self)))]

    def lengths(self, column: str) -> np.ndarray:
        """Return the number of values of the list ``column`` in every row, [rows] int64."""
        return np.concatenate([np.diff(shard.lists[column][0]) for shard in self.shards]).astype(np.int64)

    def values(self, column: str) -> np.ndarray:
        """Return the values of the list ``column``, those of all rows in order."""
        lists = (shard.lists[column] for shard in self.shards)
        return np.concatenate([flat[offsets[0] : offsets[-1]] for offsets, flat in lists])

    def column(self, name: str) -> list:
        """Return a scalar column as a list."""
        return [value for shard in self.shards for value in shard.scalars[name].to_pylist()]

    @property
    def classes(self) -> list[str]:
        """Names of the integer labels, in order."""
        return self.index["classes"]


def read_index(folder: Path) -> dict:
    """Return the index of the table at ``folder``; raise UserError when there is none."""
    try:
        return json.loads((folder / INDEX).read_text())
    except FileNotFoundError:
        raise UserError(f"{folder} is not a prepared table ({INDEX} is missing); run its prepare stage.") from None
    except ValueError as error:
        raise UserError(f"{folder / INDEX} is damaged ({error}); run its prepare stage again.") from None


def check_settings(folder: Path, index: Mapping, settings: Any) -> None:
    """Raise UserError for the first of a TableConfig's ``settings`` that compares and that the table has otherwise."""
    wanted = json.loads(json.dumps(asdict(settings)))
    compared = {field.name for field in fields(settings) if field.compare}
    for name, made in index.get("table", {}).items():
        if name in compared and made != wanted[name]:
            raise UserError(
                f"{folder} was prepared with {name} {made!r}, not {wanted[name]!r}; run its prepare stage again."
            )


def digest(folder: Path) -> str:
    """Return a digest of the rows of the table at ``folder``, from the digests in its index."""
    content = {key: value for key, value in read_index(folder).items() if key != "table"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def open_shard(path: Path, columns: pa.Schema) -> Shard:
    """Map one Arrow file; raise UserError when it is damaged or has other columns than ``columns``."""
    try:
        data = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"{path} cannot be read as an Arrow file ({error}); run its prepare stage again.") from None
    for field in columns:
        if field.name not in data.schema.names or data.schema.field(field.name).type != field.type:
            raise UserError(f"{path} has no column {field.name!r} of type {field.type}; run its prepare stage again.")
    arrays = {field.name: data.column(field.name).combine_chunks() for field in columns}
    lists = {
        name: (array.offsets.to_numpy(), array.values.to_numpy())
        for name, array in arrays.items()
        if pa.types.is_list(array.type)
    }
    scalars = {name: array for name, array in arrays.items() if name not in lists}
    return Shard(scalars, lists, data.num_rows)
