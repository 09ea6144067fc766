"""How numbers are written, on pages and in model cards, and in which order names come."""

import re


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
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e12 else f"{value:.4g}"


def amount_of_row(value: float) -> str:
    """Return how much one row is: whole numbers as they are, others with two decimals."""
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.2f}"


def natural(text: str) -> list[tuple[int, int, str]]:
    """Return a key that sorts 2 before 10."""
    parts = re.split(r"([0-9]+)", text)
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts if part]
