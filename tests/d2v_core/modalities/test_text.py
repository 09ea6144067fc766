"""Text: blocks, corruption, positions."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from d2v_core.data.order import key
from d2v_core.errors import Dropped
from d2v_core.modalities import text
from d2v_core.setup import make_setup
from tests.d2v_core.blocks import PARAMS, rows, small_setup

SETUP, _ = small_setup("text")
TABLE = SETUP.config.table


@given(st.integers(1, 500))
def test_a_document_is_cut_into_blocks_that_hold_all_of_it(length):
    ids = np.arange(length) % 900 + text.SPECIAL
    blocks = [row["tokens"] for row in text.rows(ids, TABLE)]
    assert all(len(block) <= TABLE.tokens and block[0] == text.BEGIN for block in blocks)
    np.testing.assert_array_equal(np.concatenate([block[1:] for block in blocks]), ids)


def test_an_empty_document_is_dropped():
    with pytest.raises(Dropped, match="empty"):
        text.rows(np.empty(0), TABLE)


def test_corruption_follows_the_80_10_10_rule():
    inputs = {"inputs": torch.randint(text.SPECIAL, TABLE.vocabulary - 1, (400, 60))}
    masked = text.mask([key(0, row) for row in range(400)], inputs, SETUP.config)
    changed = (masked["corrupted"] != inputs["inputs"]).float().mean()
    assert masked["mask"].float().mean() == pytest.approx(0.15 * 0.8, abs=0.005)
    assert changed == pytest.approx(0.15 * 0.9, abs=0.005)


def test_padding_is_never_masked_and_changes_nothing():
    encoder = SETUP.encoder().eval()
    members = rows("text", 3)
    inputs = text.batch(members, None, SETUP.config)
    masked = text.mask([key(0, row) for row in range(3)], inputs, SETUP.config)
    assert not masked["mask"][inputs["inputs"] == text.PAD].any()
    together = encoder(inputs)
    for number, row in enumerate(members):
        alone = encoder(text.batch([row], None, SETUP.config)).x[0]
        torch.testing.assert_close(together.x[number][: len(alone)], alone, atol=1e-5, rtol=1e-5)


def test_positions_start_after_the_padding_index():
    local = SETUP.encoder().eval().local
    ids = torch.tensor([[0, 5, 6, 1]])
    by_hand = local.norm(local.tokens(ids) + local.positions(torch.tensor([[2, 3, 4, 1]])))
    torch.testing.assert_close(local({"inputs": ids})[0][0, :3], by_hand[0, :3])
    assert not local({"inputs": ids})[0][0, 3].any()


def test_the_sizes_of_the_paper_give_the_parameters_of_the_paper():
    block = {**PARAMS["modalities"]["text"], "table": {"vocabulary": 50265, "tokens": 512}}
    trunk = block["model"]["trunk"] | {"width": 768, "depth": 12, "heads": 12, "feedforward": 3072}
    with torch.device("meta"):
        setup = make_setup("text", block | {"model": block["model"] | {"trunk": trunk}}, "")
        encoder, head = setup.encoder(), text.head(setup.trunk)
    assert sum(parameter.numel() for parameter in encoder.parameters()) == 124_054_272
    assert sum(parameter.numel() for parameter in head.parameters()) == 2_361_600
