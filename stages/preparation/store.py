"""Finished shards, kept by the name of what they were made from, so that no work is done twice.

A shard is two files: ``<split>-<key>.arrow``, then ``<split>-<key>.json``, which says how many rows it has and
their digest. The second one is the mark that the first is whole. The place is a folder or any URL that fsspec knows.
"""

import io
import json
import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import fsspec
from blake3 import blake3
from fsspec.implementations.local import LocalFileSystem

PIECE = 2**18  # bytes


@dataclass(frozen=True)
class Done:
    """What became of a shard: its file, its entry in the index, items kept, their amount in the modality's unit,
    the rows of ``dropped.parquet``, the size of the file, characters replaced in the texts of its items, and whether
    it had been made before.
    """

    file: str
    entry: Mapping
    kept: int
    amount: float
    dropped: Sequence[Mapping[str, str | None]]
    bytes: int
    replaced: int = 0
    reused: bool = False


class Store:
    """A place for finished shards; several machines may use it at once."""

    def __init__(self, place: str) -> None:
        """Open ``place``, a folder or a URL; it need not exist."""
        self.files, self.root = fsspec.core.url_to_fs(place, use_listings_cache=False)
        self.local = isinstance(self.files, LocalFileSystem)

    def find(self, name: str) -> Done | None:
        """Return the finished shard ``name``; None when there is none or its file is not what its mark says.

        In a folder the digest is checked; a URL is asked for the size, as reading all of it would take too long.
        """
        try:
            done = Done(**json.loads(self.files.cat_file(self.at(f"{name}.json"))), reused=True)
            if self.files.size(self.at(done.file)) != done.bytes:
                return None
            whole = not self.local or digest(Path(self.at(done.file))) == done.entry["blake3"]
        except (OSError, ValueError, TypeError):
            return None
        return done if whole else None

    @contextmanager
    def write(self, file: str) -> Iterator["Hashing"]:
        """Yield what to write the bytes of ``file`` to; in a folder it appears at the end and at once, by a rename.

        Nothing waits for the disk: a file that a power cut tore is not what its mark says, and is made again.
        """
        target = self.at(file)
        if not self.local:
            with self.files.open(target, "wb") as sink:
                yield Hashing(sink)
            return
        self.files.makedirs(self.root, exist_ok=True)
        temporary = Path(self.at(f".{file}.{uuid.uuid4().hex}.tmp"))
        try:
            with temporary.open("wb", buffering=0) as sink:
                yield Hashing(sink)
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)

    def mark(self, name: str, done: Done) -> None:
        """Say that the shard ``name`` is finished."""
        fields = {key: value for key, value in asdict(done).items() if key != "reused"}
        with self.write(f"{name}.json") as sink:
            sink.write((json.dumps(fields, indent=1) + "\n").encode())

    def keep(self, wanted: set[str]) -> None:
        """Remove every shard file, mark and leftover that is not ``wanted``."""
        found = self.files.ls(self.root, detail=False) if self.files.exists(self.root) else []
        for path in found:
            file = path.rpartition("/")[2]
            if file not in wanted and file.endswith((".arrow", ".json", ".tmp")):
                self.files.rm_file(path)

    def at(self, file: str) -> str:
        """Return where ``file`` is, as the file system writes it."""
        return f"{self.root}/{file}"


class Hashing(io.RawIOBase):
    """A file to write to that knows the BLAKE3 digest and the number of the bytes it was given."""

    def __init__(self, sink: BinaryIO) -> None:
        self.sink, self.hash, self.size = sink, blake3(), 0

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, content: Any) -> int:
        """Write all of ``content``, piece by piece: what was just hashed is still in the cache."""
        whole = memoryview(content)
        self.size += len(whole)
        for start in range(0, len(whole), PIECE):
            left = whole[start : start + PIECE]
            self.hash.update(left)
            while left:
                left = left[self.sink.write(left) :]
        return len(whole)


def digest(path: Path) -> str:
    """Return the BLAKE3 digest of a file."""
    return blake3().update_mmap(path).hexdigest()
