"""What a person may ask of a run, as types: the CLI, the UI and the flows refuse everything else before a run starts.

The lists that the UI offers are read from the project in the current folder: blocks of params.yaml, files of recipes.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import yaml
from prefect.types import NonNegativeInteger, PositiveInteger
from pydantic import Field


def blocks(group: str) -> list[str]:
    """Return the names of the blocks in ``group`` of params.yaml, such as the modalities; none if unreadable."""
    path = Path("params.yaml")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else None
    except (yaml.YAMLError, UnicodeDecodeError):
        content = None  # planning says so
    return list((content.get(group) or {}) if isinstance(content, dict) else {})


def named(group: str) -> Any:
    """Return the type of a name of a block: a list to choose from in the UI, checked again when the run is planned."""
    names = blocks(group)
    listed: dict[str, Any] = {"enum": names}
    return Annotated[str, Field(json_schema_extra=listed)] if names else str


def recipes() -> Any:
    """Return the type of the name of a recipe: one of the files in the folder ``recipes``."""
    folder = Path("recipes")
    names = sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml"))
    return Literal[tuple(names)] if names else str


if TYPE_CHECKING:
    Modality = str
    Task = str
    Recipe = str | None
else:
    Modality = named("modalities")
    Task = named("tasks")
    Recipe = recipes() | None
Updates = PositiveInteger | None
Batch = PositiveInteger | None
Seed = NonNegativeInteger | None
Version = Literal[1, 2] | None


def run_name() -> str:
    """Return what a run is about: its flow, then what was asked for."""
    from prefect.runtime import flow_run

    asked = {name: value for name, value in flow_run.parameters.items() if value not in (None, False)}
    subject = [str(asked.pop(name)) for name in ("modality", "task") if name in asked]
    rest = [f"{name} {value}" for name, value in asked.items() if name not in ("isolated", "push")]
    return " ".join([flow_run.flow_name or "run", *subject, *rest])
