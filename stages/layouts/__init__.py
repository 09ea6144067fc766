"""Corpora as people have them → one manifest: which items there are, what they are called, where they belong.

A layout is a function from a folder to records with ``id``, ``path``, ``part`` (the corpus's own name of a split, or
None), ``group`` (what must not be torn apart when splits are made: a speaker, a document), ``label`` and ``text``.
"""

import csv
import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import polars as pl

from d2v_core.config import require
from d2v_core.data.table import SPLITS
from d2v_core.errors import UserError

AUDIO = {".flac", ".wav", ".ogg", ".mp3", ".opus", ".aiff"}
IMAGES = {".png", ".jpg", ".jpeg", ".gif", ".webp"}
PARTS = {"train": "train", "valid": "valid", "val": "valid", "dev": "valid", "test": "test"}
COLUMNS = dict.fromkeys(("id", "path", "part", "group", "label", "text"), pl.String)
Record = dict[str, str | None]


@dataclass(frozen=True)
class HoldoutConfig:
    """Shares of groups that become a split which the corpus does not name."""

    valid: float
    test: float

    def __post_init__(self) -> None:
        require(min(self.valid, self.test) >= 0 and self.valid + self.test < 1, "valid + test must be in [0, 1).")


@dataclass(frozen=True)
class CorpusConfig:
    """The block ``corpus``: where it is, how it is laid out, and how it is cut into splits and shards."""

    raw: str
    layout: Literal["librispeech", "imagefolder", "text", "tsv", "arrays"]
    holdout: HoldoutConfig
    rows_per_shard: int
    max_dropped: float
    parts: dict[str, str] = field(default_factory=lambda: dict(PARTS))  # the corpus's name of a split → ours
    sentence: str = "sentence"  # tsv: column of the text
    category: str = "label"  # tsv: column of the label

    def __post_init__(self) -> None:
        require(self.rows_per_shard > 0, f"rows_per_shard must be positive, not {self.rows_per_shard}.")
        require(0 <= self.max_dropped <= 1, f"max_dropped must be in [0, 1], not {self.max_dropped}.")
        for name in self.parts.values():
            require(name in SPLITS, f"parts must map to {', '.join(SPLITS)}, not to {name!r}.")


def manifest(corpus: CorpusConfig, seed: int) -> pl.DataFrame:
    """Return the corpus's items, sorted by id, with a ``split`` each: id, path, split, label, text (all strings).

    Raises UserError when the folder is missing, holds nothing in this layout, or leaves nothing to train on.
    """
    root = Path(corpus.raw)
    if not root.is_dir():
        raise UserError(f"{root} is not a folder; put the corpus there or change `raw` in params.yaml.")
    items = pl.DataFrame(list(LAYOUTS[corpus.layout](root, corpus)), schema=COLUMNS)
    if items.is_empty():
        raise UserError(
            f"{root} holds nothing in the {corpus.layout!r} layout; check `raw` and `layout` in params.yaml."
        )
    items = assign_splits(items.sort("id", "path"), corpus, seed)
    if (items["split"] == "train").sum() == 0:
        raise UserError(f"{root} has nothing in its 'train' split; check `parts` and `holdout` in params.yaml.")
    return items.select("id", "path", "split", "label", "text")


def assign_splits(items: pl.DataFrame, corpus: CorpusConfig, seed: int) -> pl.DataFrame:
    """Name every item's split: the corpus's own where it has one, else train, from which missing splits are cut."""
    named = items.with_columns(pl.col("part").replace_strict(corpus.parts, default=None).alias("split"))
    named = named.filter(pl.col("split").is_not_null() | pl.col("part").is_null())
    named = named.with_columns(pl.col("split").fill_null("train"))
    present = set(named["split"])
    groups = sorted(set(named.filter(pl.col("split") == "train")["group"]), key=lambda group: keyed(seed, group))
    start, holders = 0, {}
    for split in ("test", "valid"):
        share = getattr(corpus.holdout, split)
        if split not in present and share:
            count = max(1, round(share * len(groups)))
            holders |= dict.fromkeys(groups[start : start + count], split)
            start += count
    moved = pl.col("group").replace_strict(holders, default="train")
    return named.with_columns(pl.when(pl.col("split") == "train").then(moved).otherwise("split").alias("split"))


def keyed(seed: int, name: str) -> bytes:
    """Return a digest that orders names at random, the same on every machine."""
    return hashlib.blake2b(f"{seed}:{name}".encode(), digest_size=16).digest()


def files(root: Path, suffixes: set[str]) -> list[Path]:
    """Return the files under ``root`` with one of ``suffixes``, sorted, hidden files and folders left out."""
    found = (path for path in root.rglob("*") if path.suffix.lower() in suffixes and path.is_file())
    return sorted(path for path in found if not any(part.startswith(".") for part in path.relative_to(root).parts))


def part_of(name: str, parts: Mapping[str, str]) -> str | None:
    """Return the part that a folder or file name begins with, as ``train`` in ``train-clean-100``; None if none."""
    beginning = name.partition("-")[0]
    return beginning if beginning in parts else None


def librispeech(root: Path, corpus: CorpusConfig) -> Iterator[Record]:
    """Read ``[<part>-*/]<speaker>/<chapter>/<utterance>.flac``, with transcripts in ``*.trans.txt`` if there are any.

    A ``splits.tsv`` at the root, with columns utt_id and split, names the parts if it is there.
    """
    listing = root / "splits.tsv"
    rows = list(read_delimited(listing)) if listing.exists() else []
    if rows and not {"utt_id", "split"} <= rows[0].keys():
        raise UserError(f"{listing} has no columns 'utt_id' and 'split' in its header; add them or remove the file.")
    listed = {row["utt_id"]: row["split"] for row in rows}
    transcripts = dict(
        line.rstrip().split(maxsplit=1) for path in files(root, {".txt"}) if path.name.endswith(".trans.txt")
        for line in read_lines(path) if len(line.split()) > 1
    )  # fmt: skip
    for path in files(root, AUDIO):
        name = path.stem
        part = listed.get(name) or part_of(path.relative_to(root).parts[0], corpus.parts)
        yield {"id": name, "path": str(path), "part": part, "group": name.split("-")[0], "text": transcripts.get(name)}


def imagefolder(root: Path, corpus: CorpusConfig) -> Iterator[Record]:
    """Read ``[<part>/]<class>/.../<image>``; the class is the label."""
    yield from in_folders(root, IMAGES, corpus, labelled=True)


def text(root: Path, corpus: CorpusConfig) -> Iterator[Record]:
    """Read ``[<part>/].../<document>.txt``."""
    yield from in_folders(root, {".txt"}, corpus, labelled=False)


def arrays(root: Path, corpus: CorpusConfig) -> Iterator[Record]:
    """Read ``[<part>/]<class>/.../<array>.npy``: any modality whose data come as NumPy arrays."""
    yield from in_folders(root, {".npy"}, corpus, labelled=True)


def in_folders(root: Path, suffixes: set[str], corpus: CorpusConfig, labelled: bool) -> Iterator[Record]:
    """Yield the files of a tree whose first folder may name a part and whose next names the label."""
    for path in files(root, suffixes):
        *folders, _ = path.relative_to(root).parts
        name = str(path.relative_to(root).with_suffix(""))
        part = folders.pop(0) if folders and folders[0] in corpus.parts else None
        label = folders[0] if labelled and folders else None
        yield {"id": name, "path": str(path), "part": part, "group": name, "label": label}


def tsv(root: Path, corpus: CorpusConfig) -> Iterator[Record]:
    """Read ``<part>.tsv`` or ``.csv`` with a header; two columns hold the text and the label."""
    for path in files(root, {".tsv", ".csv"}):
        for number, row in enumerate(read_delimited(path)):
            if corpus.sentence not in row or corpus.category not in row:
                if path.stem not in corpus.parts:
                    break
                names = f"{corpus.sentence!r} and {corpus.category!r}"
                raise UserError(
                    f"{path} has no columns {names}; set `sentence` and `category`, or leave it out of `parts`."
                )
            name = f"{path.stem}-{number:07d}"
            label, words = row[corpus.category], row[corpus.sentence]
            yield {"id": name, "path": None, "part": path.stem, "group": name, "label": label, "text": words}


def read_delimited(path: Path) -> Iterator[dict[str, str]]:
    """Yield the rows of a .tsv (no quoting) or .csv (quoting) file with a header."""
    style = {"delimiter": "\t", "quoting": csv.QUOTE_NONE} if path.suffix.lower() == ".tsv" else {}
    try:
        yield from csv.DictReader(read_lines(path), **style)
    except csv.Error as error:
        raise UserError(f"{path} is not a table with a header ({error}); correct or remove it.") from None


def read_lines(path: Path) -> Iterator[str]:
    """Yield the lines of a UTF-8 text file, with their ends."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as lines:
            yield from lines
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text ({error}); convert or remove it.") from None


LAYOUTS: dict[str, Callable[[Path, CorpusConfig], Iterator[Record]]] = {
    "librispeech": librispeech,
    "imagefolder": imagefolder,
    "text": text,
    "tsv": tsv,
    "arrays": arrays,
}
