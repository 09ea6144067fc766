"""The trunk: shapes, norms, padding, and what is dropped when."""

from dataclasses import replace

import torch

from d2v_core.model.transformer import Transformer
from tests.d2v_core.blocks import small_setup

POST = small_setup("speech")[0].trunk
PRE = small_setup("vision")[0].trunk


def test_padding_has_no_effect_on_real_tokens():
    trunk = Transformer(POST).eval()
    x = torch.randn(2, 9, 16)
    padding = torch.zeros(2, 9, dtype=torch.bool)
    padding[1, 6:] = True
    padded, _ = trunk(x, padding)
    alone, _ = trunk(x[1:, :6])
    torch.testing.assert_close(padded[1:, :6], alone)


def test_a_bias_and_padding_act_together():
    trunk = Transformer(PRE).eval()
    x, bias = torch.randn(2, 9, 16), torch.randn(1, 2, 9, 9)
    padding = torch.zeros(2, 9, dtype=torch.bool)
    padding[:, 7:] = True
    padded, _ = trunk(x, padding, bias)
    alone, _ = trunk(x[:, :7], None, bias[:, :, :7, :7])
    torch.testing.assert_close(padded[:, :7], alone)
    assert not torch.allclose(alone, trunk(x[:, :7])[0])


def test_a_post_norm_block_reports_its_feedforward_result_before_the_residual():
    trunk = Transformer(POST).eval()
    x = torch.randn(2, 9, 16)
    block = trunk.blocks[0]
    inner = block.attention_norm(x + block.attention(x, None))
    output, result = block(x, None)
    torch.testing.assert_close(result, block.feedforward(inner))
    torch.testing.assert_close(output, block.feedforward_norm(inner + result))


def test_a_pre_norm_trunk_ends_with_a_norm_that_block_outputs_have_not_seen():
    trunk = Transformer(replace(PRE, init_std=0.5)).eval()
    x, layers = trunk(torch.randn(2, 9, 16))
    assert len(layers) == 2
    torch.testing.assert_close(x, trunk.final_norm(layers[-1][0]))


def test_attention_has_no_key_bias_where_the_paper_has_none():
    names = {name for name, _ in Transformer(PRE).named_parameters()}
    assert "blocks.0.attention.query_bias" in names
    assert "blocks.0.attention.qkv.bias" not in names
    assert "blocks.0.attention.qkv.bias" in {name for name, _ in Transformer(POST).named_parameters()}


def test_layers_and_paths_are_dropped_in_training_alone():
    trunk = Transformer(replace(POST, depth=8, layer_drop=0.5, drop_path=0.5))
    x = torch.randn(2, 9, 16)
    torch.manual_seed(0)
    counts = {len(trunk.train()(x)[1]) for _ in range(20)}
    assert len(counts) > 1
    assert max(counts) <= 8
    outputs = [trunk.eval()(x) for _ in range(2)]
    assert len(outputs[0][1]) == 8
    assert torch.equal(outputs[0][0], outputs[1][0])


def test_truncated_initialisation_scales_the_output_layers_by_depth():
    trunk = Transformer(replace(PRE, width=64, feedforward=256, depth=4))
    for number, block in enumerate(trunk.blocks, 1):
        limit = PRE.init_std / (2 * number) ** 0.5
        assert limit * 0.9 < block.attention.output.weight.abs().max() <= limit
        assert block.attention.qkv.weight.abs().max() <= PRE.init_std
