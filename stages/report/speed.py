"""How fast a run was on this machine: rates of training and the wall time of stages, from ``state``.

Times differ from run to run, and the report is the same bytes every time; so they have a page of their own.
"""

import json
import statistics
from dataclasses import dataclass
from pathlib import Path

from stages.paths import STATE
from stages.report import parsing
from stages.report.parsing import Reader

SPEEDS, TIMINGS = STATE / "speed", STATE / "timings.jsonl"
UNITS = {"peak_mib": "MiB", "input_wait": "%", "memory_mib": "MiB"}


@dataclass(frozen=True)
class Speed:
    """The median of every rate of every training, by name, and the seconds of every stage that ran, longest first."""

    columns: list[str]
    trainings: dict[str, dict[str, float]]
    stages: list[tuple[str, float]]
    notices: list[str]


def read_speed(root: Path = Path()) -> Speed:
    """Return what ``state`` holds now."""
    reader = Reader(root)
    paths = sorted(path.relative_to(root) for path in (root / SPEEDS).glob("[!.]*.csv"))
    found = {path.stem: reader.read(rates, path) for path in paths}
    trainings = {name: values for name, values in found.items() if values}
    columns = list(dict.fromkeys(column for values in trainings.values() for column in values))
    stages = reader.read(timings, TIMINGS) or {}
    longest = sorted(stages.items(), key=lambda stage: -stage[1])
    return Speed(columns, trainings, longest, reader.notices)


def rates(path: Path) -> dict[str, float]:
    """Return the median of every column but ``update``; the first record, which warms up, counts where it is alone."""
    columns = parsing.columns(path)
    values = {name: column[1:] or column for name, column in columns.items() if name != "update"}
    return {name: statistics.median(column) for name, column in values.items()}


def timings(path: Path) -> dict[str, float]:
    """Return the seconds of every stage when it ran last."""
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return {str(record["stage"]): float(record["seconds"]) for record in records}
