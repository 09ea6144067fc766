"""The comparison as a page: docs/parity.md is what ``page`` made of the rows on one day."""

import re
from collections.abc import Iterable, Mapping

from tests.parity.comparison import BARS, IN_PART, Bar, Row

VERSIONS = {
    "data2vec 1.0": ("v1_audio", "v1_text", "v1_vision"),
    "data2vec 2.0": ("v2_audio", "v2_text", "v2_image"),
}
EXTRA_CASES = ("alt_", "nopad/", "released_pipeline/")
INTRODUCTION = """# Parity with the reference implementation

`python -m tests.parity` prints this page. Six tiny random models of the public reference implementation, computed once
and kept as numbers, are computed again by ours: the same weights, batch, masks and noise, in float32 on one CPU core.
`tests/d2v_core/test_golden.py` fails when a difference exceeds its bar, when a dumped number is neither compared nor
named below, or when this page lists other quantities or bars than the code.

What this shows: that forward pass, targets, losses, gradients, the teacher's update and five updates in a row are those
of the reference, in training mode with everything random switched off. What it does not show: that our masks have the
same distribution (tests/d2v_core/data), that recipes at full size reach the published results, or that half precision
behaves alike. Where the reference has another habit than ours, the comparison switches that habit on (see below).

A cell holds the largest difference over all elements, and in brackets of how many tensors; `–` was not dumped.
"""
HABITS = """## Where ours does otherwise

In each of these the numbers above are those of the reference's habit, switched on by `tests/parity/habits.py` or by
what the model is given. `tests/parity/test_habits.py` shows both.

| model | reference | ours |
|---|---|---|
| v1_audio | zeroes padded frames before the first positional convolution alone | before every one: features of an \
utterance alone are those in a batch |
| v2_audio | does not zero padded frames before positional convolutions | before every one |
| v1_audio, v2_audio, v2_text | counts padding in the statistics of targets over time | leaves it out: targets of an \
utterance alone are those in a batch |
| v2_text | keeps what the embedding's norm makes of padding | zeroes it; the decoder alone can see the difference, at \
visible padding |
| v2_text | counts the loss of masked padding | `hide` leaves padding out of the tokens to predict; the model takes \
what it is given |
| v1_text, `released_pipeline/` | its data pipeline shows the teacher masked tokens only | the teacher reads the whole \
sentence; the model takes what it is given |
| v1_vision | its port has no prediction head, normalises the mean alone and shares the patch embedding | always has \
a head; the norms and `teacher.copied` are parameters |
| v1_vision, `alt_ffn_targets/` | takes the feed-forward result after the layer scale | before it |
"""


def page(rows: Iterable[Row], reasons: Mapping[str, set[tuple[str, str | None]]]) -> str:
    """Return the whole page in Markdown; ``reasons`` say, for each model, why a quantity has no row."""
    rows = list(rows)
    parts = [INTRODUCTION]
    for title, models in VERSIONS.items():
        parts.append(f"## {title}\n\n{table([row for row in rows if row.model in models], models)}\n")
    bars = [f"| {bar.what} | {limit(bar)} | {bar.why} |" for bar in BARS]
    parts.append("\n".join(["## Bars", "", "| numbers | bar | why |", "|---|---|---|", *bars, ""]))
    parts.append(HABITS)
    parts.append(not_compared_table(reasons))
    return "\n".join(parts)


def limit(bar: Bar) -> str:
    """Return a bar as it is written."""
    return "equal" if bar.limit == 0 else f"{bar.limit:.0e} {bar.kind}"


def table(rows: list[Row], models: tuple[str, ...]) -> str:
    """Return the table of one version: a line for each quantity, a column for each model."""
    lines = [f"| quantity | bar | {' | '.join(models)} |", "|---|---|" + "---|" * len(models)]
    by_quantity: dict[str, dict[str, Row]] = {}
    for row in sorted(rows, key=lambda row: (row.quantity.startswith(EXTRA_CASES), row.quantity)):
        by_quantity.setdefault(row.quantity, {})[row.model] = row
    for quantity, found in by_quantity.items():
        bar = next(iter(found.values())).bar
        cells = [cell(found.get(model)) for model in models]
        lines.append(f"| `{quantity}` | {limit(bar)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def cell(row: Row | None) -> str:
    """Return what a column says about one quantity."""
    return "–" if row is None else f"{row.difference:.1e} ({row.tensors})"


def not_compared_table(reasons: Mapping[str, set[tuple[str, str | None]]]) -> str:
    """Return the quantities that have no row, or one that covers them in part, with the reason of each."""
    models: dict[tuple[str, str], list[str]] = {}
    for model, found in reasons.items():
        for quantity, why in found:
            models.setdefault((why or "not explained", quantity), []).append(model)
    lines = ["## Not compared", "", "| quantity | models | reason |", "|---|---|---|"]
    lines += [f"| `{quantity}` | {', '.join(found)} | {why} |" for (why, quantity), found in sorted(models.items())]
    lines += [f"| `{quantity}`, in part | {model} | {why} |" for (model, quantity), why in IN_PART.items()]
    return "\n".join([*lines, ""])


def without_digits(text: str) -> str:
    """Return a page without the differences, which depend on the machine in their last digits."""
    return re.sub(r"\d\.\de[+-]\d\d \(", "(", text)
