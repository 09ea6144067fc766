"""Curves and dots as inline SVG: the same bytes every time, in the page's own colours and fonts.

Only numbers are drawn by matplotlib. Titles and legends, which may hold names from a corpus, are left to the template.
"""

import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from math import isfinite
from typing import Any

import matplotlib
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter, StrMethodFormatter

from stages.report.tables import Summary, histogram
from stages.report.verdicts import LEAST_PREDICTION_SPREAD, LEAST_TARGET_SPREAD, Comparison

COLOURS = {  # placeholders in the SVG → variables of the page's style
    "pretrained": "#0072b2",
    "baseline": "#d55e00",
    "first": "#00806b",
    "second": "#9a4f96",
    "third": "#8a6d00",
    "ink": "#1b1b1b",
    "line": "#d8d8d8",
}
STYLE: dict[Any, object] = {
    "svg.hashsalt": "d2v",
    "svg.fonttype": "none",
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": COLOURS["ink"],
    "axes.labelcolor": COLOURS["ink"],
    "axes.linewidth": 0.6,
    "axes.formatter.useoffset": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": COLOURS["line"],
    "grid.linewidth": 0.5,
    "text.color": COLOURS["ink"],
    "xtick.color": COLOURS["ink"],
    "ytick.color": COLOURS["ink"],
    "figure.constrained_layout.use": True,
}
SIZE = (3.0, 2.05)  # inches
BARS = 20  # of a histogram
MOST_POINTS = 300  # per curve; a long run's page stays small
LARGE_RATIO = 20.0  # of the largest to the smallest value, from which on an axis is logarithmic
SPREADS = {"target_spread": "targets", "prediction_spread": "predictions"}
LIMITS = {"target_spread": LEAST_TARGET_SPREAD, "prediction_spread": LEAST_PREDICTION_SPREAD}
SHARES = {"position_share": "by position", "sample_share": "by sample"}
Numbers = Sequence[float]


@dataclass(frozen=True)
class Curve:
    """One line of a chart; a ``faint`` one is a single seed behind its mean."""

    name: str
    x: Numbers
    y: Numbers
    colour: str
    dashed: bool = False
    faint: bool = False


@dataclass(frozen=True)
class Chart:
    """A drawn chart with what the template writes around it."""

    title: str
    svg: Markup
    legend: tuple[Curve, ...] = ()


def pretraining(columns: Mapping[str, Numbers]) -> list[Chart]:
    """Return the charts of a pretraining run, as many as its columns allow."""
    charts = [
        chart(columns, "Loss", "loss", {"loss": "loss"}),
        chart(columns, "Spread (dotted: limits)", "spread", SPREADS, limits=LIMITS),
        chart(columns, "Target variance explained", "share", SHARES, bounds=(-0.02, 1.02)),
        chart(columns, "Decay of the teacher", "decay per update", {"decay": "decay"}),
    ]
    return [made for made in charts if made is not None]


def chart(
    columns: Mapping[str, Numbers],
    title: str,
    unit: str,
    names: Mapping[str, str],
    *,
    limits: Mapping[str, float] | None = None,
    bounds: tuple[float, float] | None = None,
) -> Chart | None:
    """Return a chart of some columns over updates, or None when a run has none of them."""
    curves = []
    shown: dict[str, float] = {}
    for place, (column, name) in enumerate(names.items()):
        if column in columns:
            colour = ("first", "second")[place] if len(names) > 1 else "ink"
            curves.append(Curve(name, columns["update"], columns[column], colour, dashed=place > 0))
            shown |= {colour: limits[column]} if limits else {}
    if not curves:
        return None
    svg = draw(title, lambda axes: lines(axes, curves, unit, shown, bounds))
    return Chart(title, svg, tuple(curves) if len(names) > 1 else ())


def finetuning(curves: Mapping[str, Mapping[str, tuple[Numbers, Numbers]]]) -> list[Chart]:
    """Return the chart of a task's losses: for every origin the mean over seeds, with the seeds behind it."""
    drawn, legend = [], []
    for (origin, seeds), colour in zip(curves.items(), origin_colours(curves), strict=True):
        if len(seeds) > 1:
            drawn += [Curve(origin, x, y, colour, faint=True) for x, y in seeds.values()]
        legend.append(Curve(origin, *mean_curve(list(seeds.values())), colour))
    if not legend:
        return []
    title = "Training loss"
    return [Chart(title, draw(title, lambda axes: lines(axes, drawn + legend, "loss")), tuple(legend))]


def overlaid(title: str, unit: str, curves: Mapping[str, tuple[Numbers, Numbers]]) -> Chart:
    """Return a chart with the curve of every run."""
    drawn = [Curve(name, x, y, *look) for (name, (x, y)), look in zip(curves.items(), looks(), strict=False)]
    return Chart(title, draw(title, lambda axes: lines(axes, drawn, unit)), tuple(drawn))


def looks() -> Iterator[tuple[str, bool]]:
    """Yield colours that can be told apart, every second one dashed: a curve shows through an equal one."""
    colours = ("pretrained", "baseline", "first", "second", "third", "ink")
    return cycle((colour, place % 2 > 0) for place, colour in enumerate(colours))


def distribution(summary: Summary) -> Chart | None:
    """Return how much the rows of every split of a table are, in shares of the split; None when all are the same."""
    if not summary.varies:
        return None
    amounts = {name: split.amounts for name, split in summary.splits.items()}
    lowest, highest = zip(*(split.extent for split in summary.splits.values()), strict=True)
    curves: list[Curve] = []
    for (name, values), colour in zip(amounts.items(), ("ink", "first", "second"), strict=False):
        edges, counts = histogram(values, min(lowest), max(highest), BARS)
        shares = [100 * count / len(values) for count in counts]
        curves.append(Curve(name, edges, shares, colour, dashed=bool(curves)))
    title = f"{summary.unit} per row"
    return Chart(title, draw(title, lambda axes: steps(axes, curves, summary.unit)), tuple(curves))


def steps(axes: Axes, curves: Sequence[Curve], unit: str) -> None:
    """Draw histograms: the first one filled, the others as lines."""
    for curve in curves:
        line = "--" if curve.dashed else "-"
        axes.stairs(curve.y, curve.x, linestyle=line, linewidth=1.5, color=COLOURS[curve.colour])
    axes.set_xlabel(unit)
    axes.set_ylabel("% of the rows")
    axes.set_ylim(bottom=0)


def origin_colours(origins: Sequence[str] | Mapping) -> list[str]:
    """Return the colour of every origin: pretrained is always one, what it is compared with the other."""
    rest = iter(["baseline", "first", "second", "third"])
    return ["pretrained" if origin == "pretrained" else next(rest, "ink") for origin in origins]


def mean_curve(curves: Sequence[tuple[Numbers, Numbers]]) -> tuple[Numbers, Numbers]:
    """Return the mean of the curves at the points that all of them have."""
    points = [dict(zip(x, y, strict=True)) for x, y in curves]
    shared = [x for x in points[0] if all(x in other for other in points)]
    return shared, [sum(curve[x] for curve in points) / len(points) for x in shared]


def scores(comparisons: Mapping[str, Comparison]) -> Chart | None:
    """Return a chart with a row per comparison: every seed a dot, every mean a bar."""
    rows = {name: comparison for name, comparison in comparisons.items() if comparison.ours or comparison.baseline}
    if not rows:
        return None
    lower = {comparison.lower_is_better for comparison in rows.values()}
    better = {frozenset([True]): "← better", frozenset([False]): "better →"}.get(frozenset(lower), "")
    return Chart("", draw("scores of every seed", lambda axes: dots(axes, rows, better), (3.6, 1.25)))


def dots(axes: Axes, rows: Mapping[str, Comparison], better: str) -> None:
    """Draw every seed's score."""
    for row, comparison in enumerate(rows.values()):
        for side, colour, shift in ((comparison.ours, "pretrained", -0.15), (comparison.baseline, "baseline", 0.15)):
            if side is None or side.mean is None:
                continue
            height = row + shift
            axes.plot(side.values, [height] * len(side.values), "o", color=COLOURS[colour], markersize=4.5, alpha=0.55)
            axes.plot([side.mean], [height], "|", color=COLOURS[colour], markersize=9, markeredgewidth=1.8)
    axes.set_yticks(range(len(rows)), list(rows))
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.margins(x=0.12)
    axes.set_xlabel(f"% ({better})" if better else "%")
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")


def lines(
    axes: Axes,
    curves: Sequence[Curve],
    unit: str,
    limits: Mapping[str, float] | None = None,
    bounds: tuple[float, float] | None = None,
) -> None:
    """Draw curves over updates, and dotted lines at the limits of their colours."""
    for curve in curves:
        x, y = thin(curve.x), thin(curve.y)
        look: dict[str, Any] = {"linestyle": "--" if curve.dashed else "-", "linewidth": 0.7 if curve.faint else 1.5}
        marker = "o" if len(x) == 1 else ""
        axes.plot(x, y, color=COLOURS[curve.colour], alpha=0.4 if curve.faint else 1.0, marker=marker, **look)
    for colour, limit in (limits or {}).items():
        axes.axhline(limit, color=COLOURS[colour], linestyle=":", linewidth=1)
    values = [value for curve in curves for value in curve.y if isfinite(value)] + list((limits or {}).values())
    if bounds:
        axes.set_ylim(*bounds)
    elif values and min(values) > 0 and max(values) / min(values) > LARGE_RATIO:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        unit += " (log scale)"
    axes.set_xlabel("updates")
    axes.set_ylabel(unit)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))


def thin(values: Numbers) -> Numbers:
    """Return at most ``MOST_POINTS`` values, evenly spaced, with the first and the last."""
    if len(values) <= MOST_POINTS:
        return values
    last = len(values) - 1
    return [values[place * last // (MOST_POINTS - 1)] for place in range(MOST_POINTS)]


def draw(title: str, paint: Callable[[Axes], None], size: tuple[float, float] = SIZE) -> Markup:
    """Return what ``paint`` draws into axes as SVG for the page, without ids, dates or fixed colours."""
    buffer = io.StringIO()
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        figure = Figure(figsize=size)
        paint(figure.add_subplot())
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    svg = buffer.getvalue()
    svg = re.sub(r'<g id="[^"]*"', "<g", svg[svg.index("<svg") :])
    svg = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", svg)
    for name, colour in COLOURS.items():
        svg = svg.replace(colour, f"var(--{name})")
    return Markup(svg.replace("<svg", Markup('<svg role="img" aria-label="{}"').format(title), 1))
