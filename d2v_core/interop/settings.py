"""What a checkpoint of fairseq or BEiT says about its training, read out of records of objects that were never made."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from d2v_core.interop.pickles import entries
from d2v_core.interop.symbolic import Inert

T = TypeVar("T")

SECTIONS = (  # where settings are, the first that has one counts; those of a fine-tuning lie over what it started from
    ("cfg", "model"),
    ("cfg", "model", "w2v_args", "model"),
    ("cfg", "model", "w2v_args"),
    ("cfg", "model", "pretrained_model_args", "model"),
    ("cfg", "task"),
    ("cfg", "model", "w2v_args", "task"),
    ("args",),
)
LAYER = re.compile(r"\(\s*(\d+)\s*,\s*(\d+)\s*,\s*(\d+)\s*\)\s*\]\s*(?:\*\s*(\d+))?")


class Settings:
    """The settings in a file, and in ``assumed`` the published values that were taken where it has none."""

    def __init__(self, root: Mapping) -> None:
        """Take the settings from what a checkpoint holds beside its weights."""
        found = (walk(root, path) for path in SECTIONS)
        self.sections = [section for section in found if content(section) is not None]
        self.assumed: dict[str, object] = {}

    def find(self, *names: str) -> Any:
        """Return the value of the first of ``names``, dotted ones lead into blocks, that is there; None otherwise."""
        for name in names:
            for section in self.sections:
                value = plain(walk(section, name.split(".")))
                if value is not None:
                    return value
        return None

    def get(self, default: T, *names: str) -> T:
        """Return the value of the first of ``names`` that is there, of the type of ``default``, else ``default``."""
        value = self.find(*names)
        if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if type(value) is type(default):
            return value
        self.assumed[names[0].rpartition(".")[2]] = default
        return default


def content(record: object) -> dict | None:
    """Return what a mapping of any kind holds by name: also an omegaconf container's nodes; None for all else."""
    if isinstance(record, Inert) and isinstance(record.state, dict) and "_content" in record.state:
        return entries(record.state["_content"])
    return entries(record)


def walk(record: Any, path: Sequence[str]) -> Any:
    """Return what is at ``path`` in nested mappings, None when there is nothing."""
    for name in path:
        record = (content(record) or {}).get(name)
    return record


def plain(record: object) -> object:
    """Return a setting as a plain value; None for containers, and for values that refer to others or are not set."""
    if isinstance(record, Inert) and isinstance(record.state, dict):
        record = record.state.get("_val")
    if isinstance(record, str) and (record == "???" or "${" in record):
        return None
    return record if isinstance(record, (bool, int, float, str)) else None


def convolutions(text: object) -> list[tuple[int, int, int]]:
    """Return (channels, kernel, stride) per layer of a setting like "[(512, 10, 5)] + [(512, 3, 2)] * 4"."""
    layers: list[tuple[int, int, int]] = []
    for channels, kernel, stride, times in LAYER.findall(text if isinstance(text, str) else ""):
        layers += [(int(channels), int(kernel), int(stride))] * min(int(times or 1), 100)
    return layers
