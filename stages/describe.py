"""``python -m stages.describe NAME``: what is in a table, before anything is trained on it.

Splits, lengths, labels, what was dropped and why, and some rows, read from the table's own files by polars: printed,
and as a page with sounds and pictures in ``reports``.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from d2v_core.data.table import read_index
from stages import params, runner
from stages.paths import METRICS, REPORT, TABLES, VOCABULARIES
from stages.report import media, page, tables
from stages.report.tables import Drop, Split, Summary

BINS, WIDEST = 10, 40
MOST_CHARACTERS = 100
PICTURES = 24


def main(name: str) -> None:
    """Print the description of the table ``name`` of a modality or a labelled corpus, and write its page."""
    known = params.load()
    modality = (known.get("labelled") or {}).get(name, {}).get("modality", name)
    settings = (known["modalities"].get(modality) or {}).get("table", {})
    summary = tables.summarize(TABLES / name, settings)
    shown = examples(summary, settings, modality)
    for split, rows in summary.splits.items():
        print("\n".join(describe(split, rows, summary.unit)))
        print(
            "\n".join(
                f"  {row.id}: {row.text[:MOST_CHARACTERS] or row.about}" for row in shown[split][: tables.EXAMPLES]
            )
        )
    print("\n".join([*dropped(summary.drops), *replaced(name)]))
    target = REPORT.with_name(f"describe-{name}.html")
    page.write(target, "describe.html.jinja", name=name, summary=summary, settings=settings, shown=shown)


def examples(summary: Summary, settings: Mapping, modality: str) -> dict[str, list[media.Shown]]:
    """Return some rows of every split as a person sees and hears them."""
    classes, room, count = read_index(summary.folder)["classes"], media.Room(), PICTURES if "size" in settings else 5
    vocabulary: Path = VOCABULARIES / modality
    return {
        split: [
            media.show(row, settings, vocabulary, classes, room, wide=True)
            for row in tables.examples(summary, split, count)
        ]
        for split in summary.splits
    }


def describe(name: str, split: Split, unit: str) -> Iterator[str]:
    """Yield the lines of one split."""
    yield f"{name}: {split.rows:,} rows, {split.amount:,.1f} {unit}"
    if split.amounts.n_unique() > 1:
        yield from histogram(split, unit)
    yield from (f"  label {label}: {count:,}" for label, count in split.labels.items())


def histogram(split: Split, unit: str) -> Iterator[str]:
    """Yield a bar for every tenth of the range of the amounts of a split."""
    edges, counts = tables.histogram(split.amounts, *split.extent, BINS)
    for start, end, count in zip(edges, edges[1:], counts, strict=False):
        yield f"  {start:8.1f} to {end:8.1f} {unit} {count:7,} {'#' * round(WIDEST * count / max(counts))}"


def dropped(drops: list[Drop]) -> Iterator[str]:
    """Yield how many items were dropped for which reason, with one of each."""
    yield f"dropped: {sum(drop.count for drop in drops):,}"
    for drop in drops:
        yield f"  {drop.reason}: {drop.count:,}, for example {json.dumps(drop.item)}: {drop.detail}"


def replaced(name: str) -> Iterator[str]:
    """Yield how many characters took the place of what was not text, where there are any."""
    counts = METRICS / name / "counts.json"
    found = json.loads(counts.read_text()).get("replaced", 0) if counts.exists() else 0
    if found:
        yield f"replaced: {found:,} characters that were not text"


if __name__ == "__main__":
    runner.run(main)
