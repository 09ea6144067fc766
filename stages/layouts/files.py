"""The files of a corpus by name, and what a name says: kind, part, label."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from stages import sources
from stages.layouts.config import CorpusConfig

AUDIO = (".flac", ".wav", ".ogg", ".oga", ".mp3", ".opus", ".aiff", ".aif", ".au", ".caf", ".w64")
IMAGES = (".png", ".jpg", ".jpeg", ".gif", ".webp")
COMPRESSED = ("", ".gz", ".zst")
DOCUMENTS = tuple(f".txt{end}" for end in COMPRESSED)
JSON_LINES = tuple(f".jsonl{end}" for end in COMPRESSED)
COLUMNAR = (".parquet", ".arrow")
DELIMITED = (".tsv", ".csv")
ARRAYS = (".npy",)
KNOWN = (*AUDIO, *IMAGES, *DOCUMENTS, *JSON_LINES, *COLUMNAR, *DELIMITED, *ARRAYS)
Record = dict[str, str | None]


@dataclass(frozen=True)
class Files:
    """What is below the root of a corpus: the name of every file → its location."""

    root: str
    locations: Mapping[str, str]

    @cached_property
    def unique(self) -> dict[str, str]:
        """Locations by file names without folders, of the files that are alone in having theirs."""
        counts = Counter(name.rpartition("/")[2] for name in self.locations)
        last = {name.rpartition("/")[2]: location for name, location in self.locations.items()}
        return {name: last[name] for name, count in counts.items() if count == 1}

    def having(self, suffixes: tuple[str, ...]) -> Iterator[tuple[str, str]]:
        """Yield name and location of the files with one of ``suffixes``, in the order of their names."""
        for name, location in self.locations.items():
            if name.lower().endswith(suffixes) and name.rpartition("/")[2][0] != ".":
                yield name, location


def read_files(corpus: CorpusConfig) -> Files:
    """Return the files of a corpus; a folder that holds all of an archive and is no part is left out of their names.

    Raises UserError when there is nothing at ``raw``.
    """
    found = sources.listing(corpus.raw)
    first = {name.partition("/")[0] for name in found}
    inside = all("!/" in location and "/" in name for name, location in found.items())
    if found and inside and len(first) == 1 and part_of(min(first), corpus.parts) is None:
        found = {name.partition("/")[2]: location for name, location in found.items()}
    return Files(corpus.raw, found)


def stem(name: str) -> str:
    """Return a file's name without the suffixes that say what it is; a name without one stays."""
    ends = [suffix for suffix in KNOWN if name.lower().endswith(suffix)]
    return name[: -len(max(ends, key=len))] if ends else name


def part_of(name: str, parts: Mapping[str, str]) -> str | None:
    """Return the part that a folder or file name begins with, as ``train`` in ``train-clean-100``; None if none."""
    beginning = re.split("[-.]", name)[0]
    return beginning if beginning in parts else None
