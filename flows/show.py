"""What a person sees of a run in Prefect's UI beside its log: tables, curves and links, as artifacts."""

import base64
import csv
import io
import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from prefect.artifacts import (
    create_image_artifact,
    create_link_artifact,
    create_markdown_artifact,
    create_table_artifact,
)
from prefect.states import State

from flows.graph import Stage

REPORT = Path("reports/index.html")
SHOWN = {  # names in progress lines → what people read
    "decay": "τ",
    "target_spread": "target spread",
    "prediction_spread": "prediction spread",
    "units_per_second": "units/s",
    "teraflops_per_second": "TFLOP/s",
}
DOTS = 100  # per inch


def key(*parts: str) -> str:
    """Return the key of an artifact: small letters, digits and dashes."""
    return re.sub("[^a-z0-9]+", "-", "-".join(parts).lower()).strip("-")


def show_states(states: Mapping[str, State]) -> None:
    """Show how the stages ended."""
    rows = [{"stage": name, "state": state.name, "message": state.message} for name, state in states.items()]
    create_table_artifact(rows, key="stages", description="How the stages ended")


def show_results(stages: Iterable[Stage]) -> None:
    """Show the metrics and the curves of ``stages`` that are there."""
    stages = list(stages)
    rows = [row for stage in stages for path in stage.metrics for row in metric_rows(stage.name, Path(path))]
    if rows:
        create_table_artifact(rows, key="metrics", description="Metrics of the stages of this run")
    for stage in stages:
        for path in map(Path, stage.plots):
            curves = read_curves(path)
            if curves:
                create_image_artifact(
                    image_url=picture(curves, f"{stage.name}: loss"),
                    key=key("loss", stage.name),
                    description=f"Loss of {stage.name} over {len(curves['update'])} records",
                )


def show_report() -> None:
    """Show where the report of the current folder is, once it is there."""
    if REPORT.exists():
        address = os.environ.get("D2V_REPORTS_URL", REPORT.resolve().as_uri())
        create_link_artifact(
            address, link_text=f"Report: {address}", key="report", description="The report of this run"
        )


def metric_rows(stage: str, path: Path) -> list[dict]:
    """Return the numbers of a metrics file, nested names joined by dots."""
    if not path.is_file():
        return []
    left, rows = [("", json.loads(path.read_text()))], []
    while left:
        name, value = left.pop(0)
        if isinstance(value, dict):
            left = [(f"{name}.{inner}".lstrip("."), number) for inner, number in value.items()] + left
        elif isinstance(value, int | float):
            rows.append({"stage": stage, "metric": name, "value": value})
    return rows


def read_curves(path: Path) -> dict[str, list[float]]:
    """Return the columns ``update`` and ``loss`` of a CSV file; nothing when it has none."""
    if not path.is_file():
        return {}
    with path.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    if not rows or not {"update", "loss"} <= set(rows[0]):
        return {}
    return {name: [float(row[name]) for row in rows] for name in ("update", "loss")}


def picture(curves: Mapping[str, list[float]], title: str) -> str:
    """Return a PNG of the loss over updates as a ``data:`` URL, which needs no file and no network."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.5), dpi=DOTS, layout="constrained")
    axes = figure.subplots()
    axes.plot(curves["update"], curves["loss"], marker="o" if len(curves["update"]) == 1 else "")
    axes.set(title=title, xlabel="updates", ylabel="loss")
    axes.grid(alpha=0.3)
    content = io.BytesIO()
    figure.savefig(content, format="png")
    return "data:image/png;base64," + base64.b64encode(content.getvalue()).decode()


def show_version(branch: str, commit: str, difference: str, summary: str) -> None:
    """Show which commit holds what ran and what came out, and the commands that get at it."""
    text = f"""**{summary.splitlines()[0]}**

Branch `{branch}`, commit `{commit}`

```sh
git diff HEAD..{branch} -- params.yaml
dvc params diff HEAD {branch}
dvc metrics diff HEAD {branch}
git worktree add ../{branch.replace("/", "-")} {branch}   # then `dvc checkout` there brings its models and its report
```

Changed parameters:

```diff
{difference or "none"}
```
"""
    create_markdown_artifact(text, key="version", description=f"{branch} {commit}")


def sentence(done: str, total: str, rest: str) -> str:
    """Return a progress line as Markdown: ``rest`` is rate, time left and ``name=value`` notes."""
    head, *notes = re.split(r" (?=\w+=)", rest.strip())
    shown = [f"{SHOWN.get(name, name)} **{value}**" for name, _, value in (note.partition("=") for note in notes)]
    return " · ".join([f"{done} of {total}", *([head] if head else []), *shown])
