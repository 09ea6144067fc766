"""Stage ``report``: everything in ``metrics`` and ``plots`` → ``reports/index.html``, the same bytes every time."""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from d2v_core.data.files import publish_folder
from stages import runner
from stages.paths import REPORT
from stages.report import figures, verdicts
from stages.report.content import read_content

TEMPLATE = "page.html.jinja"


def main() -> None:
    """Write the report of whatever the other stages have left behind so far."""
    page = render()
    with publish_folder(REPORT.parent) as folder:
        (folder / REPORT.name).write_bytes(page.encode())
    print(f"{REPORT}: {len(page.encode()) / 1000:.0f} kB")


def render() -> str:
    """Return the page. Names, labels and transcripts come from corpora, so the template escapes all it is given."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    filters = {"score": score, "signed": signed, "grouped": grouped, "amount": amount, "words": words, "brief": brief}
    environment.filters.update(filters)
    return environment.get_template(TEMPLATE).render(content=read_content(), figures=figures, verdicts=verdicts)


def score(value: float | None) -> str:
    """Return a score with one decimal."""
    return "–" if value is None else f"{value:.1f}"


def signed(value: float | None) -> str:
    """Return a difference with its sign."""
    return "–" if value is None else f"{value:+.1f}".replace("-", "−")


def grouped(value: float | None) -> str:
    """Return a number of things, in groups of three digits."""
    return "–" if value is None else f"{value:,.0f}"


def amount(value: float | None, unit: str) -> str:
    """Return an amount of data in its unit; seconds become minutes or hours when there are many."""
    if value is None or unit != "seconds":
        return f"{grouped(value)} {unit}"
    for size, name in ((3600, "h"), (60, "min")):
        if value >= size:
            return f"{value / size:,.1f} {name}"
    return f"{value:.1f} s"


def words(name: str) -> str:
    """Return the name of a metric as words."""
    return name.replace("_", " ")


def brief(value: object) -> str:
    """Return any number in few digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    runner.run(main)
