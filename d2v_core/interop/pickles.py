"""Files of ``torch.save`` read without running anything in them: tensors and plain values, the rest stays a record.

Both formats are read, the zip archive of torch 1.6 and later and the stream of older ones. What the file holds is
followed by ``symbolic``; bytes of a tensor are taken from the file only where and when the tensor is asked for.
"""

import io
import math
import mmap
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeGuard, cast

import torch
from torch import Tensor

from d2v_core.errors import UserError
from d2v_core.interop.symbolic import PERSISTENT, Inert, follow

ZIP, LEGACY = b"PK\x03\x04", b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
LARGEST_PICKLE = 2**28  # bytes, without the tensors
DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
DAMAGE = (  # what the parsers of a file that contradicts itself raise
    *(ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RuntimeError, OSError, EOFError),
    *(struct.error, zipfile.BadZipFile),
)
MAPPINGS = ("collections.OrderedDict", "collections.defaultdict", "builtins.dict", "__builtin__.dict")
TENSORS = ("torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor")
PARAMETERS = ("torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state")


@dataclass(frozen=True)
class Place:
    """Where the bytes of a storage are in the file; ``checksum`` is their CRC-32 where the format has one."""

    start: int
    size: int
    checksum: int | None


class TorchFile:
    """An open file of ``torch.save``: ``root`` is what was saved, with tensors still as records (see ``tensor``)."""

    def __init__(self, path: Path) -> None:
        """Open the file at ``path``; raises UserError when it is missing, cut off, or of another kind."""
        self.path = Path(path)
        self.checked: set[str] = set()
        self.memory = map_file(self.path)
        try:
            if self.memory[: len(ZIP)] == ZIP:
                self.root, self.places = read_archive(self.path, self.memory)
            elif self.memory[: len(LEGACY)] == LEGACY:
                self.root, self.places = read_stream(self.memory)
            else:
                raise UserError(f"{self.path} is not a file that torch.save wrote; give one, or save it again as one.")
        except DAMAGE as error:
            raise self.damaged(error) from None

    def damaged(self, error: Exception, name: str = "") -> UserError:
        """Return the error for a file whose content, at the tensor ``name``, contradicts itself."""
        said = isinstance(error, (ValueError, zipfile.BadZipFile))
        why = f"{name}: " * bool(name) + (str(error) if said else f"{type(error).__name__} {error}")
        return UserError(f"{self.path} cannot be read ({why}); it is cut off or damaged, fetch or save it again.")

    def tensor(self, record: object, name: str) -> Tensor:
        """Return a copy of the tensor of ``record`` in its own dtype and shape, contiguous.

        Raises UserError, which calls it ``name``, when it is something else or its bytes are not all there.
        """
        if not is_tensor(record):
            what = record.name if isinstance(record, Inert) else type(record).__name__
            raise UserError(f"{self.path}: {name} is no tensor but {what}, which is never run; save tensors alone.")
        record = record.arguments[0] if record.arguments and record.name in PARAMETERS else record
        try:
            (_, kind, key, _, count, *view), offset, shape, stride = storage_of(record)
            dtype = DTYPES[kind.name.rpartition(".")[2]]
            first = view[0][1] if view and view[0] else 0
            return self.strided(self.bytes_of(key), dtype, first, count, (offset, shape, stride))
        except DAMAGE as error:
            raise self.damaged(error, name) from None

    def bytes_of(self, key: str) -> memoryview:
        """Return the bytes of a storage, checked once where the format has a checksum."""
        place = self.places[key]
        content = memoryview(self.memory)[place.start : place.start + place.size]
        if len(content) < place.size:
            raise ValueError("the file ends before it")
        if place.checksum is not None and key not in self.checked and zlib.crc32(content) != place.checksum:
            raise ValueError("its checksum is wrong")
        self.checked.add(key)
        return content

    def strided(self, content: memoryview, dtype: torch.dtype, first: int, count: int, view: tuple) -> Tensor:
        """Return a copy of the ``view`` (offset, shape, stride) of ``count`` elements from element ``first`` on."""
        offset, shape, stride = view
        numbers = (first, count, offset, *shape, *stride)
        if any(not isinstance(number, int) or number < 0 for number in numbers) or len(shape) != len(stride):
            raise ValueError("its shape is none")
        elements = math.prod(shape)
        if elements == 0:
            return torch.empty(shape, dtype=dtype)
        last = offset + sum((size - 1) * step for size, step in zip(shape, stride, strict=True))
        if elements > count or last >= count or (first + count) * dtype.itemsize > len(content):
            raise ValueError("it is larger than what is stored of it")
        flat = torch.frombuffer(content, dtype=dtype, offset=first * dtype.itemsize, count=count)
        return flat.as_strided(shape, stride, offset).clone(memory_format=torch.contiguous_format)

    def tensors(self, mapping: Mapping, prefix: str = "") -> dict[str, Tensor]:
        """Return all values of ``mapping`` as tensors; errors call them ``prefix`` and their name."""
        return {name: self.tensor(record, f"{prefix}{name}") for name, record in mapping.items()}


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a file that holds a state dict and nothing else; raise UserError for anything else."""
    file = TorchFile(path)
    mapping = entries(file.root)
    if mapping is None:
        raise UserError(f"{path} holds no state dict; save the model's state_dict() alone.")
    return file.tensors(mapping)


def entries(record: object) -> dict | None:
    """Return what a record holds by name: a dict of any kind, or the attributes of an argparse.Namespace; else None."""
    if isinstance(record, dict):
        return record
    if not isinstance(record, Inert):
        return None
    if record.name in MAPPINGS:
        return {**pairs(record.arguments or ()), **record.entries}
    if record.name == "argparse.Namespace" and isinstance(record.state, dict):
        return record.state
    return None


def pairs(arguments: tuple) -> dict:
    """Return the items that an OrderedDict was called with, [[key, value], ...], as Python 2 wrote them."""
    first = arguments[0] if arguments else ()
    return {pair[0]: pair[1] for pair in first if len(pair) == 2} if isinstance(first, list) else {}


def is_tensor(record: object) -> TypeGuard[Inert]:
    """Return whether ``record`` is that of a tensor or of a parameter."""
    if not isinstance(record, Inert) or not record.arguments:
        return False
    return record.name in TENSORS or (record.name in PARAMETERS and is_tensor(record.arguments[0]))


def storage_of(record: Inert) -> tuple[tuple, int, tuple, tuple]:
    """Return the persistent id, offset, shape and stride in the record of a tensor."""
    storage, offset, shape, stride = (record.arguments or ())[:4]
    stored = isinstance(storage, Inert) and storage.name == PERSISTENT and storage.arguments
    identity = storage.arguments[0] if stored else None
    if not isinstance(identity, tuple):
        raise ValueError("its storage is none")
    return identity, offset, shape, stride


def map_file(path: Path) -> mmap.mmap:
    """Map a file into memory; what is written to the map stays in this process."""
    try:
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    except FileNotFoundError:
        raise UserError(f"{path} is missing; give the path of a checkpoint.") from None
    except ValueError:
        raise UserError(f"{path} is empty; fetch or save it again.") from None


def read_archive(path: Path, memory: mmap.mmap) -> tuple[object, dict[str, Place]]:
    """Return what a zip archive of torch 1.6 or later describes, and where its storages are."""
    with zipfile.ZipFile(path) as archive:
        files = {info.filename: info for info in archive.infolist()}
        program = next((name for name in files if name.count("/") == 1 and name.endswith("/data.pkl")), None)
        if program is None:
            raise UserError(f"{path} is a zip archive but not one that torch.save wrote; give one that is.")
        folder = program.removesuffix("data.pkl")
        if any(info.compress_type != zipfile.ZIP_STORED for info in files.values()):
            raise ValueError("it is compressed")
        if files[program].file_size > LARGEST_PICKLE:
            raise ValueError("its pickle is too large")
        order = files.get(f"{folder}byteorder")
        if order is not None and archive.read(order).strip() != b"little":
            raise ValueError("it is big-endian")
        root, _ = follow(io.BytesIO(archive.read(program)))
    start = len(folder) + len("data/")
    stored = {name[start:]: info for name, info in files.items() if name.startswith(f"{folder}data/")}
    return root, {key: place_of(info, memory) for key, info in stored.items()}


def place_of(info: zipfile.ZipInfo, memory: mmap.mmap) -> Place:
    """Return where the content of a stored member begins: behind its local header, whose length varies."""
    header = memory[info.header_offset : info.header_offset + 30]
    name, extra = struct.unpack("<HH", header[26:30])
    return Place(info.header_offset + 30 + name + extra, info.file_size, info.CRC)


def read_stream(memory: mmap.mmap) -> tuple[object, dict[str, Place]]:
    """Return what a file of torch before 1.6 describes, and where its storages are: each behind its length."""
    memory.seek(0)
    stream = cast(BinaryIO, memory)
    (_, _), (_, _), (system, _) = follow(stream), follow(stream), follow(stream)
    if not (entries(system) or {}).get("little_endian"):
        raise ValueError("it is big-endian")
    (root, persistent), (keys, _) = follow(stream), follow(stream)
    sizes = {}
    for (identity,) in (record.arguments or () for record in persistent):
        if isinstance(identity, tuple) and len(identity) >= 5 and isinstance(identity[1], Inert):
            sizes[identity[2]] = DTYPES[identity[1].name.rpartition(".")[2]].itemsize
    places, start = {}, memory.tell()
    for key in keys:
        (count,) = struct.unpack("<q", memory[start : start + 8])
        if count < 0:
            raise ValueError("a length is negative")
        places[key] = Place(start + 8, count * sizes[key], None)
        start += 8 + count * sizes[key]
    return root, places
