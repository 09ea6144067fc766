"""Where bytes are: the one place that knows files, URLs, archives and rows of tables.

A location is a plain string, so that records can be pickled and written down: a path or an fsspec URL;
``ARCHIVE.tar!/MEMBER`` for a member of an archive; ``TABLE.parquet#ROW/COLUMN`` for one value of a table, where the row
of ``.jsonl`` is the byte at which its line begins. Archives and tables are indexed once per process.
"""

import io
import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from blake3 import blake3

from d2v_core.errors import Dropped, UserError
from stages.archives import DAMAGE, Archive, unpacked
from stages.cells import Arrow, Lines, Parquet, open_cells

T = TypeVar("T")

LARGEST = 2**30  # bytes of one item; a larger one is dropped before it is read
BLOCK = 2**16  # bytes hashed at a time
HELD = 2**28  # bytes that are kept for a second reader
INPUTS: ContextVar[dict[str, bytes] | None] = ContextVar("INPUTS", default=None)
ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2", ".tar.zst")
CELLS = (".parquet", ".arrow", ".jsonl", ".jsonl.gz", ".jsonl.zst")
MEMBER = re.compile(rf"(.+?(?:{'|'.join(map(re.escape, ARCHIVES))}))!/(.+)", re.DOTALL)
CELL = re.compile(rf"(.+(?:{'|'.join(map(re.escape, CELLS))}))#(\d+)/(.+)", re.DOTALL)
URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


def listing(root: str) -> dict[str, str]:
    """Return the files of a corpus: name below ``root``, with ``/``, → location; sorted, hidden ones left out.

    ``root`` is a folder, an archive or one file, at a path or an fsspec URL. What an archive holds is named as if it
    had been unpacked where it lies. Raises UserError when there is nothing at ``root`` or it cannot be listed.
    """
    found: dict[str, str] = {}
    for name, location in sorted(plain_files(root)):
        if not name.lower().endswith(ARCHIVES):
            found[name] = location
            continue
        folder = name.rpartition("/")[0]
        for member in open_archive(location).members:
            found[f"{folder}/{member}" if folder else member] = f"{location}!/{member}"
    shown = (name for name in found if not any(part.startswith(".") for part in name.split("/")))
    return {name: found[name] for name in sorted(shown)}


def plain_files(root: str) -> Iterator[tuple[str, str]]:
    """Yield name and location of every file at ``root``, archives as they are."""
    if URL.match(root):
        yield from remote_files(root)
    elif os.path.isfile(root):
        yield os.path.basename(root), root
    elif os.path.isdir(root):
        yield from local_files(str(Path(root)), "", ())
    else:
        raise UserError(f"{root} is not a folder; put the corpus there or change `raw` in params.yaml.")


def local_files(folder: str, prefix: str, above: tuple[tuple[int, int], ...]) -> Iterator[tuple[str, str]]:
    """Yield the files below ``folder``; a link to one of the folders ``above`` it is left out, as it never ends.

    Links that lead nowhere are yielded and fail when they are read; devices, sockets and pipes are left out. A name
    that is not UTF-8 is spelled with escapes, so that it is counted and dropped.
    """
    try:
        found = os.stat(folder)
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(f"{folder} cannot be listed ({error.strerror}); correct its permissions.") from None
    identity = (found.st_dev, found.st_ino)
    if identity in above:
        return
    for entry in entries:
        if entry.name.startswith("."):
            continue
        mode = mode_of(entry.path)
        shown = os.fsencode(entry.name).decode("utf-8", "backslashreplace")
        if stat.S_ISDIR(mode):
            yield from local_files(entry.path, f"{prefix}{shown}/", (*above, identity))
        elif stat.S_ISREG(mode) or stat.S_ISLNK(mode):
            yield f"{prefix}{shown}", os.fsencode(entry.path).decode("utf-8", "backslashreplace")


def mode_of(path: str) -> int:
    """Return the kind and permissions of what is at ``path``, those of the link itself where it leads nowhere."""
    try:
        return os.stat(path).st_mode
    except OSError:
        return os.lstat(path).st_mode


def remote_files(root: str) -> Iterator[tuple[str, str]]:
    """Yield the files below an fsspec URL, or the one it names."""
    system, path = filesystem(root)
    try:
        found = system.find(path)
    except OSError as error:
        raise UserError(f"{root} cannot be listed ({error}); check `raw` in params.yaml.") from None
    if not found:
        raise UserError(f"{root} is empty or not there; put the corpus there or change `raw` in params.yaml.")
    for each in found:
        name = each.removeprefix(path).lstrip("/") or each.rpartition("/")[2]
        yield name, system.unstrip_protocol(each)


def filesystem(url: str) -> tuple[Any, str]:
    """Return the fsspec filesystem of a URL and the path there; raise UserError when there is none."""
    import fsspec

    try:
        return fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise UserError(f"{url} cannot be opened ({error}); install what it needs or change `raw`.") from None


def as_member(location: str) -> re.Match | None:
    """Return archive and member of a location that names both, else None; the test before the pattern saves time."""
    return MEMBER.fullmatch(location) if "!/" in location else None


def as_cell(location: str) -> re.Match | None:
    """Return table, row and column of a location that names them, else None."""
    return CELL.fullmatch(location) if "#" in location else None


def local_path(location: str) -> Path | None:
    """Return the path of a location that is a file of its own on this machine, else None."""
    return None if URL.match(location) or as_member(location) or as_cell(location) else Path(location)


def name_of(location: str) -> str:
    """Return the file name, in lower case, by whose end the kind of content is told; empty for a value of a table."""
    return "" if as_cell(location) else location.rpartition("/")[2].lower()


def open_bytes(location: str, largest: int = LARGEST) -> bytes:
    """Return the bytes at ``location``; raise Dropped when they are more than ``largest``, OSError when unreadable."""
    if cell := as_cell(location):
        return kept(open_table, cell[1])[int(cell[2]), cell[3]]
    if member := as_member(location):
        archive = open_archive(member[1])
        refuse_large(archive.size(member[2]), largest)
        return once(location, archive.size(member[2]), lambda: archive.read(member[2]))
    with open_file(location) as file:
        refuse_large(file.seek(0, os.SEEK_END), largest)
        file.seek(0)
        return file.read()


def open_file(location: str) -> BinaryIO:
    """Return a seekable binary file with the bytes at ``location``."""
    if as_member(location) or as_cell(location):
        return io.BytesIO(open_bytes(location))
    if URL.match(location):
        return remote_file(location)
    if not stat.S_ISREG(os.stat(location).st_mode):
        raise Dropped("unreadable", "not a regular file")
    return open(location, "rb")


def remote_file(location: str) -> BinaryIO:
    """Return a seekable binary file with the bytes at a URL; archives and tables are not fetched as a whole."""
    inputs = INPUTS.get()
    if inputs is not None and location in inputs:
        return io.BytesIO(inputs[location])
    system, path = filesystem(location)
    file = system.open(path, "rb")
    if inputs is None or location.lower().endswith((*ARCHIVES, *CELLS)) or getattr(file, "size", None) is None:
        return file
    with file:
        refuse_large(file.size, LARGEST)
        return io.BytesIO(once(location, file.size, file.read))


@contextmanager
def reading_once() -> Iterator[None]:
    """Keep up to ``HELD`` bytes of what is fetched from URLs and unpacked from archives, for a second reader."""
    token = INPUTS.set({})
    try:
        yield
    finally:
        INPUTS.reset(token)


def once(location: str, count: int, read: Callable[[], bytes]) -> bytes:
    """Return the ``count`` bytes at ``location`` that ``read`` returns, or those that were kept."""
    inputs = INPUTS.get()
    if inputs is None:
        return read()
    content = inputs.get(location)
    if content is None:
        content = read()
        if sum(map(len, inputs.values())) + count <= HELD:
            inputs[location] = content
    return content


def refuse_large(count: int, largest: int) -> None:
    """Raise Dropped for an item of ``count`` bytes when that is more than ``largest``."""
    if count > largest:
        raise Dropped("too large", f"{count} bytes, more than {largest}")


def size(location: str) -> int:
    """Return the number of bytes at ``location``."""
    if as_cell(location):
        return len(open_bytes(location))
    if member := as_member(location):
        return open_archive(member[1]).size(member[2])
    with open_file(location) as file:
        return file.seek(0, os.SEEK_END)


def digest(location: str) -> str:
    """Return the BLAKE3 digest of the bytes at ``location``, in hexadecimal; files are read in blocks."""
    if as_member(location) or as_cell(location):
        return blake3(open_bytes(location)).hexdigest()
    found = blake3()
    with open_file(location) as file:
        while block := file.read(BLOCK):
            found.update(block)
    return found.hexdigest()


def open_archive(location: str) -> Archive:
    """Return the archive at ``location``, indexed once per process; raise UserError when it is damaged."""
    return kept(index_archive, location)


def index_archive(location: str) -> Archive:
    """Open and index the archive at ``location``."""
    return Archive(location, open_file)


def open_table(location: str) -> Parquet | Arrow | Lines:
    """Open the table of rows at ``location`` for single values."""
    path = local_path(location)
    return open_cells(location, lambda: unpacked(location, lambda: open_file(location)), path)


def line_places(location: str) -> Iterator[int]:
    """Yield where the lines of the ``.jsonl`` file at ``location`` begin; raise UserError when it is damaged."""
    try:
        for place, _ in Lines(unpacked(location, lambda: open_file(location))):
            yield place
    except DAMAGE as error:
        raise UserError(f"{location} is damaged ({error}); fetch it again.") from None


def kept(opener: Callable[[str], T], location: str) -> T:
    """Return what ``opener`` makes of ``location``, kept in this process until the file changes."""
    return opened(opener, location, fingerprint(location))


@lru_cache(maxsize=16)
def opened(opener: Callable[[str], Any], location: str, identity: tuple[int, ...]) -> Any:
    """Return what ``opener`` makes of ``location``; ``identity`` tells it from what was there before."""
    return opener(location)


def fingerprint(location: str) -> tuple[int, ...]:
    """Return what changes with a local file; what a URL holds is taken to stay while this process runs."""
    outer = as_member(location)
    path = outer[1] if outer else location
    if URL.match(path):
        return ()
    found = os.stat(path)
    return found.st_mtime_ns, found.st_size
