"""The arithmetic of docs/scaling.md: plans keep the published batch, and the page shows what the code prints."""

import math
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import scaling
from stages import params, recipes
from tests.tiny import ROOT

PAGE = (ROOT / "docs/scaling.md").read_text()


@pytest.fixture(scope="module")
def base() -> scaling.Plan:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recipes, "FOLDER", ROOT / "recipes")
        patch.setattr(params, "PATH", ROOT / "params.yaml")
        patch.chdir(ROOT)
        return scaling.plan("v2/vision-base")


def test_a_plan_is_the_recipes_and_stands_on_the_page(base):
    assert base.gradient_bytes == 4 * (85_647_360 + 2_585_856)  # its parameters (tests/test_recipes.py)
    assert (base.batch, base.accumulate, base.updates, base.views_weighted) == (64, 4, 375_300, True)
    for gpus in (8, 64):
        assert scaling.row(base, gpus) in PAGE.splitlines()


@pytest.mark.parametrize("gpus", [1, 2, 3, 8, 64, 100])
def test_the_published_batch_is_kept_and_can_be_shared_out(base, gpus):
    batch, accumulate = scaling.shares(base, gpus)
    assert batch * accumulate == pytest.approx(256)
    assert accumulate % gpus == 0


def test_a_ring_sends_all_bytes_nearly_twice(base):
    assert scaling.ring(1000, 2, 10.0) == 100
    assert scaling.ring(1000, 1, 10.0) == 0
    assert scaling.exchange(1000, 8, 1.0) == scaling.ring(1000, 8, scaling.NVLINK)
    between = scaling.ring(1000, 8, 1.0)
    assert math.isclose(scaling.exchange(1000, 64, 1.0), between, rel_tol=1e-6)
    assert " ! " in scaling.row(replace(base, row=5.0), 64), "4 images are less than a row of 5"


def test_every_recipe_that_pretrains_is_on_the_page():
    names = [
        path.relative_to(ROOT / "recipes").with_suffix("").as_posix() for path in Path(ROOT).glob("recipes/v?/*.yaml")
    ]
    wanted = [name for name in names if name.partition("/")[2].startswith(("speech-", "vision-", "text-"))]
    assert [name for name in wanted if PAGE.count(f"| {name} |") != 2] == []
