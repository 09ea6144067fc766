"""What a shard is made from, as one digest: a shard with the same one need not be made again, anywhere.

It covers the content of every input file, what the manifest says of it, the numbers of its labels, the block ``table``,
the pieces or tokenizer, the source of everything that decodes, and the versions of the libraries.
"""

import hashlib
import inspect
import json
from collections.abc import Sequence
from functools import cache, lru_cache
from importlib import metadata
from pathlib import Path
from types import ModuleType

from d2v_core import modalities
from d2v_core.data import table as tables
from stages import archives, cells, pictures, readers, sources, tokenizer

LIBRARIES = ("numpy", "pyarrow", "soundfile", "soxr", "torch", "torchvision", "sentencepiece", "tokenizers")
SYMBOLS = "vocabulary.json"  # names of symbols: no row depends on them


def work(modality: str, table: object, vocabulary: Path) -> str:
    """Return a digest of how items become rows: code, libraries, parameters, vocabulary."""
    return digest([code(modality), repr(table), files(vocabulary)])


@cache
def code(modality: str) -> str:
    """Return a digest of the code that makes rows, as this process loaded it: a worker may be older than its files."""
    from stages.preparation import shards

    modules = (modalities.get(modality), tables, readers, sources, archives, cells, pictures, tokenizer, shards)
    versions = [metadata.version(name) for name in LIBRARIES]
    written = [path.read_bytes().decode() for module in modules for path in of(module)]
    return digest([written, versions])


def of(module: ModuleType) -> list[Path]:
    """Return the source files of a module or package."""
    path = Path(inspect.getfile(module))
    return sorted(path.parent.rglob("*.py")) if path.name == "__init__.py" else [path]


def files(folder: Path) -> list[tuple[str, str]]:
    """Return names and digests of the files of a vocabulary, but not of the list of its symbols."""
    found = sorted(path for path in folder.glob("*") if path.name != SYMBOLS and path.is_file())
    return [(path.name, of_file(path, path.stat().st_mtime_ns)) for path in found]


@lru_cache(maxsize=16)
def of_file(path: Path, modified: int) -> str:
    """Return the SHA-256 of a file, kept until it is changed."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def shard(work: str, split: str, records: Sequence[dict], labels: dict[str, Sequence[int]], several: bool) -> str:
    """Return the key of the shard of ``records``, whose labels have the numbers ``labels``, ``several`` or one each."""
    inputs = [[record, content(record["path"])] for record in records]
    return digest([work, split, inputs, labels, several])


def content(path: str | None) -> str | None:
    """Return a digest of an input's bytes; of one that cannot be read, what went wrong: it is tried again."""
    if path is None:
        return None
    try:
        return sources.digest(path)
    except Exception as error:  # archives and file systems raise anything; the reader will find the same
        return repr(error)


def digest(content: object) -> str:
    """Return a digest of plain values."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
