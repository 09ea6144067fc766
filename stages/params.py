"""params.yaml, the only configuration: read, addressed by dotted keys, never guessed."""

import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import yaml

from d2v_core.config import build, check_keys, convert
from d2v_core.errors import UserError

T = TypeVar("T")

PATH = Path("params.yaml")
BLOCKS = {  # what every block of these groups may hold
    "modalities": ("version", "corpus", "vocabulary", "table", "model", "pretrain"),
    "labelled": ("modality", "corpus"),
    "tasks": ("modality", "table", "train", "probe"),
}


class Loader(yaml.SafeLoader):
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
    for group, keys in BLOCKS.items():
        for name, block in mapping(mapping(values, str(path)).get(group) or {}, f"{path}: {group}").items():
            where = f"{path}: {group}.{name}"
            check_keys(mapping(block, where), keys, where)
    return values


def mapping(value: object, where: str) -> Mapping:
    """Return ``value`` when it is a block of keys, and raise UserError otherwise."""
    if not isinstance(value, Mapping):
        raise UserError(f"{where} must be a block of keys, but holds {value!r}.")
    return value


def get(key: str, kind: type[T] = object, path: Path = PATH) -> T:
    """Return the value of type ``kind`` at the dotted ``key``; raise UserError when there is none or another one."""
    value: object = load(path)
    walked = str(path)
    for part in key.split("."):
        known = [str(name) for name in mapping(value, walked)]
        walked = f"{walked}: {part}" if walked == str(path) else f"{walked}.{part}"
        if part not in known:
            near = difflib.get_close_matches(part, known, n=1, cutoff=0.0)
            raise UserError(f"{walked} is missing" + (f"; the nearest key there is {near[0]!r}." if near else "."))
        value = value[part]
    return convert(kind, value, walked)


def read(cls: type[T], key: str, path: Path = PATH) -> T:
    """Return the block at the dotted ``key`` as the dataclass ``cls``; raise UserError when it does not fit."""
    return build(cls, get(key, path=path), f"{path}: {key}")
