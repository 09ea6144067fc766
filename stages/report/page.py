"""From content to a file: one template, one self-contained page."""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from d2v_core.data.files import publish
from stages.report import figures, media, verdicts, wording

FILTERS = ("score", "signed", "grouped", "amount", "words", "brief", "amount_of_row")


def write(path: Path, template: str, **content: object) -> None:
    """Publish a page, and say where it is and how large."""
    page = render(template, **content).encode()
    with publish(path) as temporary:
        temporary.write_bytes(page)
    print(f"{path}: {len(page) / 1000:.0f} kB")


def render(template: str, **content: object) -> str:
    """Return a page. Names, labels and transcripts come from corpora, so the template escapes all it is given."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update({name: getattr(wording, name) for name in FILTERS})
    environment.globals.update(figures=figures, verdicts=verdicts, limits=media)
    return environment.get_template(template).render(**content)
