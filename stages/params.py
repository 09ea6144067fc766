"""params.yaml, the only configuration: read, addressed by dotted keys, never guessed."""

import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml

from d2v_core.config import build, check_keys, convert
from d2v_core.errors import UserError

T = TypeVar("T")

PATH = Path("params.yaml")
BLOCKS: dict[str, dict[str, type]] = {  # what every block of these groups may hold; {}: its stage alone says so
    "modalities": {
        "version": int,
        "corpus": Mapping,
        "vocabulary": Mapping,
        "table": Mapping,
        "model": Mapping,
        "pretrain": Mapping,
        "v2": Mapping,
    },
    "joint": {"members": list, "trunk": Mapping, "optimizer": Mapping, "loop": Mapping},
    "labelled": {"modality": str, "corpus": Mapping},
    "tasks": {"modality": str, "table": str, "pretrained": str, "train": Mapping, "probe": Mapping},
    "language": {},
    "decoding": {},
}

SafeLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Loader(SafeLoader):
    """Reads 1e-05 as a number, as YAML 1.2 and DVC do."""


Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def load(path: Path = PATH) -> dict:
    """Return the whole file as a mapping; raise UserError when it is missing, not valid YAML or has unknown blocks."""
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader)
    except FileNotFoundError:
        raise UserError(f"{path} is missing; run from the project's folder.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    check(mapping(values, str(path)), path)
    return values


def check(values: Mapping, path: Path) -> None:
    """Raise UserError unless the seed is one and every block holds what it may; the stages check what is inside."""
    if convert(int, values.get("seed", 0), f"{path}: seed") < 0:
        raise UserError(f"{path}: seed must not be negative, but is {values['seed']}.")
    for group, kinds in BLOCKS.items():
        for name, block in mapping(values.get(group) or {}, f"{path}: {group}").items():
            where = f"{path}: {group}.{name}"
            check_keys(mapping(block, where), kinds or block, where)
            for key, kind in kinds.items():
                if key in block:
                    inner = f"{where}.{key}"
                    mapping(block[key], inner) if kind is Mapping else convert(kind, block[key], inner)


def mapping(value: object, where: str) -> Mapping:
    """Return ``value`` when it is a block of keys, and raise UserError otherwise."""
    if not isinstance(value, Mapping):
        raise UserError(f"{where} must be a block of keys, but holds {value!r}.")
    return value


def get(key: str, kind: type = object, path: Path = PATH) -> Any:
    """Return the value of type ``kind`` at the dotted ``key``; raise UserError when there is none or another one."""
    value: Any = load(path)
    walked = str(path)
    for part in key.split("."):
        known = [name for name in mapping(value, walked) if isinstance(name, str)]
        walked = f"{walked}: {part}" if walked == str(path) else f"{walked}.{part}"
        if part not in known:
            near = difflib.get_close_matches(part, known, n=1, cutoff=0.0)
            raise UserError(
                f"{walked} is missing" + (f"; the nearest key there is {near[0]!r}." if near else "; add it.")
            )
        value = value[part]
    return value if kind is object else convert(kind, value, walked)


def modality(name: str, version: int | None = None, path: Path = PATH) -> dict:
    """Return the block of modality ``name``; for version 2, its own or the one asked for, with ``v2`` laid over it."""
    block = dict(get(f"modalities.{name}", Mapping, path))
    for key in ("version", "table", "model", "pretrain"):
        if key not in block:
            raise UserError(f"{path}: modalities.{name}.{key} is missing; add it.")
    return of_version(block, version or block["version"])


def of_version(block: Mapping, version: int) -> dict:
    """Return the block of a modality as ``version`` has it: for version 2 with ``v2`` laid over the rest."""
    first = {key: value for key, value in block.items() if key != "v2"} | {"version": version}
    return merge(first, block.get("v2") or {}) if version == 2 else first


def merge(base: Mapping, changes: Mapping) -> dict:
    """Return ``base`` with ``changes`` laid over it, block by block.

    A block that is empty or says its ``kind`` replaces the one below; every other one changes only what it names.
    """
    merged = dict(base)
    for key, value in changes.items():
        below = merged.get(key)
        if isinstance(value, Mapping) and isinstance(below, Mapping) and value and "kind" not in value:
            merged[key] = merge(below, value)
        else:
            merged[key] = value
    return merged


def read(cls: type[T], key: str, path: Path = PATH) -> T:
    """Return the block at the dotted ``key`` as the dataclass ``cls``; raise UserError when it does not fit."""
    return build(cls, get(key, path=path), f"{path}: {key}")
