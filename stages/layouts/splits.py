"""Which split every item belongs to: what the corpus says, and whole groups held out where it says nothing."""

import hashlib

import polars as pl

from stages.layouts.config import CorpusConfig


def assign_splits(items: pl.DataFrame, corpus: CorpusConfig, seed: int) -> pl.DataFrame:
    """Name every item's split: the corpus's own where it has one, else train, from which missing splits are cut."""
    named = items.with_columns(pl.col("part").replace_strict(corpus.parts, default=None).alias("split"))
    named = named.filter(pl.col("split").is_not_null() | pl.col("part").is_null())
    named = named.with_columns(pl.col("split").fill_null("train"))
    present = set(named["split"])
    groups = sorted(set(named.filter(pl.col("split") == "train")["group"]), key=lambda group: keyed(seed, group))
    start = 0
    holders: dict[str, str] = {}
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
