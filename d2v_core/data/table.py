"""Tables of ready-to-train arrays: sharded, memory-mapped, uncompressed Arrow IPC files.

The *file* format is used because a cut-off *stream* file can read back silently short. A table is a folder with
``<split>-<shard>.arrow`` and an ``index.json`` that holds each shard's rows and SHA-256.
"""

import hashlib
import json
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from d2v_core.data.files import publish
from d2v_core.errors import UserError

INDEX = "index.json"
SPLITS = ("train", "valid", "test")
Row = dict[str, object]


def schema(**arrays: pa.DataType) -> pa.Schema:
    """Return the columns of a modality's table: every table has ``id``, ``label`` and ``text``; arrays are lists."""
    common = [("id", pa.string()), ("label", pa.int32()), ("text", pa.string())]
    return pa.schema(common + [(name, pa.list_(kind)) for name, kind in arrays.items()])


def write_shard(path: Path, columns: pa.Schema, rows: Iterable[Row]) -> dict[str, object]:
    """Write ``rows`` as one record batch and return the shard's entry for the index: rows and SHA-256."""
    rows = list(rows)
    arrays = [pa.array([row.get(field.name) for row in rows], field.type) for field in columns]
    batch = pa.record_batch(arrays, schema=columns)
    with publish(path) as temporary, pa.OSFile(str(temporary), "wb") as sink, pa.ipc.new_file(sink, columns) as writer:
        writer.write_batch(batch)
    return {"rows": len(rows), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def write_index(folder: Path, shards: Mapping[str, Mapping], classes: Sequence[str], symbols: int) -> None:
    """Write what a table is: its shards, the names of its labels, and how many symbols its vocabulary has."""
    content = {"classes": list(classes), "symbols": symbols, "shards": dict(sorted(shards.items()))}
    with publish(folder / INDEX) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n")


@dataclass(frozen=True)
class Shard:
    """One mapped file: scalar columns as Arrow arrays, list columns as (offsets, values)."""

    scalars: dict[str, pa.Array]
    lists: dict[str, tuple[np.ndarray, np.ndarray]]
    rows: int


class Table:
    """One split of a table, read without copying: ``table[row]`` is a mapping of scalars and flat numpy views."""

    def __init__(self, folder: Path, split: str, columns: pa.Schema) -> None:
        """Map the shards of ``split``; raises UserError for a missing table, an empty split or another schema."""
        self.folder, self.split = Path(folder), split
        self.index = read_index(self.folder)
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


def digest(folder: Path) -> str:
    """Return a digest of everything in the table at ``folder``, from the digests in its index."""
    return hashlib.sha256(json.dumps(read_index(folder), sort_keys=True).encode()).hexdigest()


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
