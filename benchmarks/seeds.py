"""One table from several checkouts that differ in their seed: ``python -m benchmarks.seeds FOLDER...``.

Prints Markdown: percent, mean ± sample deviation over all folders and seeds, of ``metrics/<task>/evaluate.json``
(fine-tuned, beside scratch) and ``metrics/<task>/probe.json`` (frozen, beside random).
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from stages import runner

SPLITS = ("valid", "test")
FILES = {"evaluate": ("pretrained", "scratch"), "probe": ("pretrained", "random")}


def main(folder: str, *more: str) -> None:
    """Print both tables for the folders named."""
    for kind, arms in FILES.items():
        print("\n".join(table(kind, arms, [Path(each) for each in (folder, *more)])), end="\n\n")


def table(kind: str, arms: Sequence[str], folders: Sequence[Path]) -> list[str]:
    """Return the lines of one Markdown table: a row for every task and metric."""
    heads = [f"{arm}, {split}" for split in SPLITS for arm in arms]
    lines = [f"| task | metric | {' | '.join(heads)} | runs |", "|" + "---|" * (len(heads) + 3)]
    names = {path.parent.name for folder in folders for path in folder.glob(f"metrics/*/{kind}.json")}
    for name in sorted(names):
        paths = [folder / "metrics" / name / f"{kind}.json" for folder in folders]
        found = [json.loads(path.read_text()) for path in paths if path.exists()]
        for metric in found[0][arms[0]][SPLITS[0]]:
            cells = [values(found, arm, split, metric) for split in SPLITS for arm in arms]
            lines.append(f"| {name} | {metric} | {' | '.join(map(spread, cells))} | {len(cells[0])} |")
    return lines


def values(found: Sequence[Mapping], arm: str, split: str, metric: str) -> list[float]:
    """Return the values of one cell over all folders and seeds."""
    return [value for each in found for value in each[arm][split][metric]["values"]]


def spread(numbers: Sequence[float]) -> str:
    """Return mean ± sample deviation, the latter only of several numbers."""
    mean = f"{np.mean(numbers):.1f}"
    return f"{mean} ± {np.std(numbers, ddof=1):.1f}" if len(numbers) > 1 else mean


if __name__ == "__main__":
    runner.call(main)
