"""params.yaml, the only configuration: read, addressed by dotted keys, never guessed."""

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import yaml

from d2v_core.config import build, check_keys
from d2v_core.errors import UserError

T = TypeVar("T")

PATH = Path("params.yaml")


def load(path: Path = PATH) -> dict:
    """Return the whole file as a mapping; raise UserError when it is missing or is not valid YAML."""
    try:
        values = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise UserError(f"{path} is missing; run from the project's folder.") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, Mapping):
        raise UserError(f"{path} must hold a block of keys.")
    return values


def get(key: str, path: Path = PATH) -> object:
    """Return the value at the dotted ``key``; raise UserError, with the nearest valid key, when there is none."""
    value = load(path)
    walked = str(path)
    for part in key.split("."):
        if not isinstance(value, Mapping):
            raise UserError(f"{walked} must be a block of keys, but holds {value!r}.")
        check_keys({part: None}, value, walked)
        value = value[part]
        walked = f"{walked}: {part}" if walked == str(path) else f"{walked}.{part}"
    return value


def read(cls: type[T], key: str, path: Path = PATH) -> T:
    """Return the block at the dotted ``key`` as the dataclass ``cls``; raise UserError when it does not fit."""
    return build(cls, get(key, path), f"{path}: {key}")
