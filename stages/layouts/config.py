"""The block ``corpus`` of params.yaml: where a corpus is, how it is laid out, and how it is cut."""

from dataclasses import dataclass, field
from typing import Literal

from d2v_core.config import require
from d2v_core.data.table import SPLITS

PARTS = {"train": "train", "valid": "valid", "val": "valid", "validation": "valid", "dev": "valid", "test": "test"}
Layout = Literal[
    "auto", "librispeech", "common_voice", "labelfolders", "imagefolder", "text", "tsv", "glue", "manifest", "parquet",
    "arrays",
]  # fmt: skip


@dataclass(frozen=True)
class HoldoutConfig:
    """Shares of groups that become a split which the corpus does not name."""

    valid: float
    test: float

    def __post_init__(self) -> None:
        require(min(self.valid, self.test) >= 0 and self.valid + self.test < 1, "valid + test must be in [0, 1).")


@dataclass(frozen=True)
class CorpusConfig:
    """The block ``corpus``; names of columns that are empty are the usual ones (docs/corpora.md)."""

    raw: str
    layout: Layout
    holdout: HoldoutConfig
    rows_per_shard: int
    max_dropped: float
    parts: dict[str, str] = field(default_factory=lambda: dict(PARTS))  # the corpus's name of a split → ours
    path: str = ""  # column of the file's name, or of its bytes
    sentence: str = ""  # column of the text
    pair: str = ""  # column of a second text
    category: str = ""  # column of the label
    separator: str = ""  # between the labels of an item that may have several; empty: one label each
    score: str = ""  # column of a number in place of a label
    speaker: str = ""  # column of what must stay in one split
    part: str = ""  # column of the split
    encoding_errors: Literal["drop", "replace"] = "drop"  # what becomes of text that is not UTF-8

    def __post_init__(self) -> None:
        require(self.rows_per_shard > 0, f"rows_per_shard must be positive, not {self.rows_per_shard}.")
        require(0 <= self.max_dropped <= 1, f"max_dropped must be in [0, 1], not {self.max_dropped}.")
        for name in self.parts.values():
            require(name in SPLITS, f"parts must map to {', '.join(SPLITS)}, not to {name!r}.")
