"""Tar archives as places to read from: every member is found in one pass, nothing is written to disk.

Only regular files count: links, devices, sparse files and names that lead out of the archive are left out.
"""

import bz2
import gzip
import io
import lzma
import os
import tarfile
import zlib
from collections.abc import Callable, Iterator
from threading import Lock
from typing import Any, BinaryIO, cast

from d2v_core.errors import UserError

HELD = 2**28  # bytes: compressed archives up to this size, unpacked, stay in memory; larger ones are read in order
DAMAGE = (tarfile.TarError, EOFError, lzma.LZMAError, zlib.error, OSError, ValueError)


class Archive:
    """A tar archive, open for reading its members in any order; several threads may.

    In a compressed one above ``HELD`` every step back starts again from its beginning, so it is best read in its order.
    """

    def __init__(self, location: str, open_file: Callable[[str], BinaryIO]) -> None:
        """Index the archive at ``location``; raises UserError when it is damaged or not there."""
        self.location, self.lock = location, Lock()
        try:
            stream = unpacked(location, lambda: open_file(location))
            self.stream = stream if location.lower().endswith(".tar") else held(stream)
            self.members = dict(regular_members(self.stream))
        except DAMAGE as error:
            raise UserError(f"{location} is a damaged archive ({error}); fetch it again.") from None

    def size(self, member: str) -> int:
        """Return the bytes of ``member``; raise FileNotFoundError when there is none of that name."""
        return self.place(member)[1]

    def read(self, member: str) -> bytes:
        """Return the content of ``member``; raise FileNotFoundError when there is none of that name."""
        start, size = self.place(member)
        with self.lock:
            self.stream.seek(start)
            return self.stream.read(size)

    def place(self, member: str) -> tuple[int, int]:
        """Return where ``member`` begins and how many bytes it has."""
        try:
            return self.members[member]
        except KeyError:
            raise FileNotFoundError(f"{self.location} has no member {member!r}") from None


def regular_members(stream: BinaryIO) -> Iterator[tuple[str, tuple[int, int]]]:
    """Yield name, beginning and size of every regular file of an unpacked archive."""
    with tarfile.open(fileobj=stream, mode="r:") as archive:
        while member := archive.next():
            cast(Any, archive).members = []  # or every header would stay in memory
            name = "/".join(part for part in member.name.split("/") if part not in ("", "."))
            inside = not member.name.startswith("/") and ".." not in member.name.split("/")
            if member.isreg() and not member.issparse() and inside and name:
                shown = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
                yield shown, (member.offset_data, member.size)


def unpacked(name: str, opener: Callable[[], BinaryIO]) -> BinaryIO:
    """Return the content of a file, unpacked as the end of ``name`` says, as a seekable stream."""
    name = name.lower()
    if name.endswith((".gz", ".tgz")):
        return cast(BinaryIO, gzip.GzipFile(fileobj=opener()))
    if name.endswith(".xz"):
        return cast(BinaryIO, lzma.LZMAFile(opener()))
    if name.endswith(".bz2"):
        return cast(BinaryIO, bz2.BZ2File(opener()))
    return io.BufferedReader(Zstandard(opener)) if name.endswith(".zst") else opener()


def held(stream: BinaryIO) -> BinaryIO:
    """Return ``stream``, read into memory when it is no longer than ``HELD``."""
    beginning = stream.read(HELD + 1)
    if len(beginning) <= HELD:
        return io.BytesIO(beginning)
    stream.seek(0)
    return stream


class Zstandard(io.RawIOBase):
    """A Zstandard file unpacked on the way: forward by reading on, backward from its beginning."""

    def __init__(self, opener: Callable[[], BinaryIO]) -> None:
        self.opener = opener
        self.begin()

    def begin(self) -> None:
        """Go back to the beginning."""
        import pyarrow as pa

        self.stream, self.position = pa.CompressedInputStream(pa.PythonFile(self.opener(), "r"), "zstd"), 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the number of bytes before the next one."""
        return self.position

    def readinto(self, target: Any) -> int:
        """Fill ``target`` as far as there is something and return how far."""
        content = self.stream.read(len(target))
        target[: len(content)] = content
        self.position += len(content)
        return len(content)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place counted from the beginning or from here; the end is where reading stops."""
        if whence == os.SEEK_END:
            raise io.UnsupportedOperation("the end of a compressed file is not known")
        target = offset + (self.position if whence == os.SEEK_CUR else 0)
        if target < self.position:
            self.begin()
        while self.position < target and (content := self.stream.read(min(2**20, target - self.position))):
            self.position += len(content)
        return self.position
