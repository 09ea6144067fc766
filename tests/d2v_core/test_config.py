"""Params become dataclasses, or one sentence."""

from dataclasses import dataclass, field
from typing import Literal

import pytest

from d2v_core.config import build, require
from d2v_core.errors import UserError


@dataclass(frozen=True)
class Inner:
    rate: float
    kind: Literal["a", "b"] = "a"

    def __post_init__(self):
        require(self.rate > 0, f"rate must be positive, not {self.rate}.")


@dataclass(frozen=True)
class Outer:
    count: int
    inner: Inner
    sizes: tuple[int, ...] = ()
    scale: float | None = None
    scales: dict[str, float] = field(default_factory=dict)


def test_nested_blocks_lists_and_numbers_are_converted():
    built = build(Outer, {"count": 2, "inner": {"rate": 1}, "sizes": [1, 2], "scales": {"x": 3}}, "block")
    assert built == Outer(2, Inner(1.0), (1, 2), None, {"x": 3.0})
    assert isinstance(built.inner.rate, float)


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"count": 1, "inner": {"rate": 1.0, "kimd": "a"}}, "inner.kimd is not a known key. Did you mean 'kind'?"),
        ({"inner": {"rate": 1.0}}, "block.count is missing"),
        ({"count": 1.5, "inner": {"rate": 1.0}}, "block.count must be int, not 1.5"),
        ({"count": True, "inner": {"rate": 1.0}}, "block.count must be int, not True"),
        ({"count": 1, "inner": {"rate": -1}}, "block.inner.rate must be positive"),
        ({"count": 1, "inner": {"rate": 1, "kind": "c"}}, "block.inner.kind must be one of 'a', 'b', not 'c'"),
        ({"count": 1, "inner": 3}, "block.inner must be a block of keys"),
        ({"count": 1, "inner": {"rate": 1}, "sizes": [1, "x"]}, "block.sizes[1] must be int, not 'x'"),
        (None, "block must be a block of keys"),
    ],
)
def test_what_does_not_fit_is_one_sentence_that_names_the_key(mapping, message):
    with pytest.raises(UserError) as error:
        build(Outer, mapping, "block")
    assert message in str(error.value)
    assert "\n" not in str(error.value)
