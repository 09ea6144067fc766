"""Mappings in, frozen dataclasses out: every key known, every key present, every number in range."""

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any

from d2v_core.errors import UserError

T = typing.TypeVar("T")


def build(cls: type[T], mapping: object, where: str) -> T:
    """Turn ``mapping`` into the dataclass ``cls``; ``where`` is the dotted key it was read from.

    Nested dataclasses are built from nested mappings, lists become tuples, and integers widen to floats.
    Raises UserError for an unknown key (naming the nearest valid one), a missing key, a value of the wrong
    type, or a value that ``cls.__post_init__`` refuses.
    """
    if not isinstance(mapping, Mapping):
        raise UserError(f"{where} must be a block of keys, but holds {mapping!r}.")
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]  # no hint says "dataclass"
    hints = typing.get_type_hints(cls)
    check_keys(mapping, fields, where)
    values = {}
    for name, field in fields.items():
        if name in mapping:
            values[name] = convert(hints[name], mapping[name], f"{where}.{name}")
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise UserError(f"{where}.{name} is missing; add it.")
    try:
        return cls(**values)
    except ValueError as error:
        raise UserError(f"{where}.{error}") from None


def check_keys(mapping: Mapping, known: Iterable[str], where: str) -> None:
    """Raise UserError for the first key that is not ``known``, naming the nearest one that is."""
    for key in mapping:
        if key not in known:
            near = difflib.get_close_matches(str(key), list(known), n=1, cutoff=0.0)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise UserError(f"{where}.{key} is not a known key.{hint}")


def convert(hint: Any, value: object, where: str) -> Any:
    """Return ``value`` as the type ``hint``; raise UserError when it is something else."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return value if isinstance(value, hint) else build(hint, value, where)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        return convert(choose([a for a in arguments if a is not type(None)], value, where), value, where)
    if origin is typing.Literal:
        if value not in arguments:
            raise UserError(f"{where} must be one of {', '.join(map(repr, arguments))}, not {value!r}.")
        return value
    if origin is tuple and isinstance(value, (list, tuple)):
        return tuple(convert(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if origin is dict and isinstance(value, Mapping):
        return {key: convert(arguments[1], item, f"{where}.{key}") for key, item in value.items()}
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(hint, type) and isinstance(value, hint) and not (isinstance(value, bool) and hint is not bool):
        return value
    raise UserError(f"{where} must be {getattr(hint, '__name__', hint)}, not {value!r}.")


def choose(members: list[type], value: object, where: str) -> type:
    """Return the one of several dataclasses whose field ``kind``, a Literal, holds the ``kind`` of ``value``."""
    if len(members) == 1:
        return members[0]
    if isinstance(value, tuple(members)):
        return type(value)
    kinds = {typing.get_args(typing.get_type_hints(member)["kind"])[0]: member for member in members}
    kind = value.get("kind") if isinstance(value, Mapping) else None
    if kind not in kinds:
        raise UserError(f"{where}.kind must be one of {', '.join(map(repr, kinds))}, not {kind!r}.")
    return kinds[kind]


def require(condition: bool, message: str) -> None:
    """Raise ValueError(message) unless ``condition``; ``message`` starts with the field's name."""
    if not condition:
        raise ValueError(message)
