"""The same numbers as the public reference implementation, for tiny random models of both versions."""

import functools
import re
from pathlib import Path

import pytest
import torch

from tests.parity.comparison import BARS, GIVEN, IN_PART, LEFT_OUT, bar_of, not_compared, quantity_of, rows
from tests.parity.measure import measure
from tests.parity.models import CASES, GOLDEN, golden, make
from tests.parity.table import page, without_digits

PAGE = Path(__file__).parents[2] / "docs" / "parity.md"
pytestmark = pytest.mark.skipif(not GOLDEN.is_dir(), reason="the golden numbers are not beside this checkout")
measured = functools.cache(measure)


@pytest.mark.parametrize("name", CASES)
def test_every_number_is_the_references_within_its_bar(name):
    found = rows(name, measured(name))
    assert not [f"{row.quantity}: {row.difference:.1e}" for row in found if not row.holds]


@pytest.mark.parametrize("name", CASES)
def test_every_dumped_tensor_is_compared_or_there_is_a_reason(name):
    missing = not_compared(name, measured(name))
    assert not {quantity for quantity, why in missing if why is None}
    forgotten = {key: value for key, value in measured(name).items() if not key.startswith("student/x")}
    assert ("student/x", None) in not_compared(name, forgotten)


def test_no_bar_and_no_reason_is_left_over():
    keys = [(name, key) for name in CASES for key in golden(name)]
    used = {bar_of(quantity_of(key)) for name, key in keys if key in measured(name)}
    assert used == set(BARS)
    for pattern in GIVEN:
        assert any(re.fullmatch(pattern, key) and key not in measured(name) for name, key in keys), pattern
    for model, pattern in LEFT_OUT:
        assert any(model == name and re.fullmatch(pattern, key) for name, key in keys), pattern
    for model, quantity in IN_PART:
        assert any(model == name and quantity == quantity_of(key) for name, key in keys), quantity


@pytest.mark.parametrize("part", ["student", "teacher.encoder"])
@pytest.mark.parametrize("name", CASES)
def test_a_weight_that_is_off_by_a_hundredth_is_found(name, part):
    model = make(name)
    with torch.no_grad():
        model.get_submodule(part).trunk.blocks[-1].feedforward.contract.bias[0] += 0.01
    wrong = {row.quantity for row in rows(name, measure(name, model)) if not row.holds}
    expected = {"student": {"student/x", "loss", "grad/*"}, "teacher.encoder": {"target/layer_i", "ema/*"}}
    assert expected[part] <= wrong


def test_the_page_lists_these_quantities_and_bars():
    found = [row for name in CASES for row in rows(name, measured(name))]
    new = page(found, {name: not_compared(name, measured(name)) for name in CASES})
    assert without_digits(PAGE.read_text()) == without_digits(new), "python -m tests.parity > docs/parity.md"
