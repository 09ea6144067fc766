"""Nothing is lost: what was seen was kept or dropped for a reason, in every split, or the stage ends."""

from collections import Counter
from collections.abc import Mapping, Sequence

import polars as pl

from d2v_core import modalities
from d2v_core.data.table import SPLITS
from d2v_core.errors import UserError
from stages.layouts import CorpusConfig
from stages.preparation.store import Done

DROPPED = {"id": pl.String, "path": pl.String, "split": pl.String, "reason": pl.String, "detail": pl.String}


def count(items: pl.DataFrame, done: Sequence[tuple[str, Done]], dropped: pl.DataFrame, modality: str) -> dict:
    """Return the counts: items seen, kept and dropped by reason, and rows and amount per split.

    ``done`` holds the split and the outcome of every shard, ``items`` and ``dropped`` have a column ``split``. Where
    text that is not UTF-8 is kept, ``replaced`` says how many characters took the place of what was none.
    """
    unit = modalities.get(modality).unit
    splits = {}
    for split in SPLITS:
        results = [result for at, result in done if at == split]
        splits[split] = {
            "seen": int((items["split"] == split).sum()),
            "kept": sum(result.kept for result in results),
            "rows": sum(result.entry["rows"] for result in results),
            unit: round(sum(result.amount for result in results), 3),
        }
    reasons = dict(sorted(Counter(dropped["reason"].to_list()).items()))
    kept = sum(split["kept"] for split in splits.values())
    counts = {"seen": len(items), "kept": kept, "unit": unit, "dropped": reasons, "splits": splits}
    if (items["encoding_errors"] == "replace").any():
        counts["replaced"] = sum(result.replaced for _, result in done)
    return counts


def check(counts: Mapping, corpus: CorpusConfig, dropped: pl.DataFrame) -> None:
    """Raise UserError when items are unaccounted for, too many were dropped, or nothing is left to train on."""
    for split, counted in counts["splits"].items():
        lost = counted["seen"] - counted["kept"] - int((dropped["split"] == split).sum())
        if lost:
            raise UserError(
                f"{corpus.raw}: {lost} items of {split!r} are neither kept nor dropped; this is a fault of d2v, please "
                "report it."
            )
    if counts["splits"]["train"]["rows"] == 0:
        left = f"{corpus.raw} left no rows in its 'train' split"
        raise UserError(f"{left}; dropped: {counts['dropped']}{example(dropped)}.")
    limit(dropped, counts["seen"], corpus)


def limit(dropped: pl.DataFrame, seen: int, corpus: CorpusConfig) -> None:
    """Raise UserError when more than the share ``max_dropped`` of the ``seen`` items is dropped."""
    share = len(dropped) / seen
    if share > corpus.max_dropped:
        counted = dict(sorted(Counter(dropped["reason"].to_list()).items()))
        reasons = f"{counted}, more than `max_dropped` allows{example(dropped)}"
        raise UserError(f"{corpus.raw}: {share:.0%} of the items were dropped: {reasons}.")


def example(dropped: pl.DataFrame) -> str:
    """Return the first dropped item as the end of a sentence; nothing when there is none."""
    rows = dropped.head(1).to_dicts()
    return "".join(f"; for example {row['path'] or row['id']}: {row['reason']} ({row['detail']})" for row in rows)
