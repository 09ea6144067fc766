"""The same numbers as the public reference implementation, for tiny random models of the three modalities."""

import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from d2v_core.config import build
from d2v_core.model.data2vec import Data2Vec, Data2VecConfig
from d2v_core.setup import make_setup
from d2v_core.training.monitor import spread
from tests.d2v_core.blocks import small_block

GOLDEN = Path(__file__).parents[3] / "shared" / "golden" / "pretrain"
pytestmark = pytest.mark.skipif(not GOLDEN.is_dir(), reason="the golden numbers are not beside this checkout")

LAYERS = [
    (r"layers\.(\d+)\.self_attn\.out_proj", r"blocks.\1.attention.output"),
    (r"layers\.(\d+)\.self_attn_layer_norm", r"blocks.\1.attention_norm"),
    (r"layers\.(\d+)\.fc1", r"blocks.\1.feedforward.expand"),
    (r"layers\.(\d+)\.fc2", r"blocks.\1.feedforward.contract"),
    (r"layers\.(\d+)\.final_layer_norm", r"blocks.\1.feedforward_norm"),
    (r"blocks\.(\d+)\.attn\.qkv", r"blocks.\1.attention.qkv"),
    (r"blocks\.(\d+)\.attn\.proj", r"blocks.\1.attention.output"),
    (r"blocks\.(\d+)\.attn\.q_bias", r"blocks.\1.attention.query_bias"),
    (r"blocks\.(\d+)\.attn\.v_bias", r"blocks.\1.attention.value_bias"),
    (r"blocks\.(\d+)\.mlp\.0", r"blocks.\1.feedforward.expand"),
    (r"blocks\.(\d+)\.mlp\.2", r"blocks.\1.feedforward.contract"),
    (r"blocks\.(\d+)\.norm1", r"blocks.\1.attention_norm"),
    (r"blocks\.(\d+)\.norm2", r"blocks.\1.feedforward_norm"),
    (r"blocks\.(\d+)\.gamma_1", r"blocks.\1.attention_scale"),
    (r"blocks\.(\d+)\.gamma_2", r"blocks.\1.feedforward_scale"),
]
LOCAL = [
    (r"feature_extractor\.conv_layers\.(\d+)\.0", r"local.extractor.\1"),
    (r"feature_extractor\.conv_layers\.(\d+)\.2\.1", r"local.extractor.\1.norm"),
    (r"^layer_norm", "local.feature_norm"),
    (r"post_extract_proj", "local.projection"),
    (r"mask_emb", "local.mask_token"),
    (r"encoder\.pos_conv\.(\d+)\.0", r"local.positions.\1.convolution"),
    (r"encoder\.layer_norm", "trunk.input_norm"),
    (r"patch_embed\.conv", "local.patches"),
    (r"cls_emb", "local.class_token"),
    (r"encoder\.rel_pos_bias\.relative_position_bias_table", "local.relative_bias"),
    (r"encoder\.norm", "trunk.final_norm"),
    (r"encoder\.sentence_encoder\.embed_tokens", "local.tokens"),
    (r"encoder\.sentence_encoder\.embed_positions", "local.positions"),
    (r"encoder\.sentence_encoder\.layernorm_embedding", "local.norm"),
    (r"encoder\.sentence_encoder\.", "trunk."),
    (r"^encoder\.", "trunk."),
]


def translate(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return reference tensors by our names, with the projections of query, key and value joined."""
    joined = {}
    for name, tensor in tensors.items():
        joined[name] = tensor
        if ".q_proj." in name:
            parts = [tensors[name.replace("q_proj", f"{letter}_proj")] for letter in "qkv"]
            joined[name.replace("self_attn.q_proj", "qkv")] = torch.cat(parts)
    ours = {}
    for name, tensor in joined.items():
        new = re.sub(r"layers\.(\d+)\.qkv", r"blocks.\1.attention.qkv", name)
        for old, replacement in LAYERS + LOCAL:
            new = re.sub(old, replacement, new)
        ours[new] = tensor
    return ours


def golden(name: str, changes: dict) -> tuple[Data2Vec, dict[str, torch.Tensor]]:
    """Return our model with the reference's weights and teacher, and everything that was dumped."""
    dumped = load_file(GOLDEN / f"v1_{changes['file']}.safetensors")
    block = small_block(name)
    block["table"] |= changes.get("table", {})
    block["model"]["trunk"] |= {"width": 32, "depth": 4, "heads": 4} | changes["trunk"]
    for part in (block["model"]["trunk"], block["model"]["local"]):
        part |= {key: 0.0 for key in part if "dropout" in key}
    block["model"]["local"] |= changes["local"]
    block["model"] |= changes.get("model", {})
    setup = make_setup(name, block, name)
    objective = block["pretrain"]["objective"] | changes["objective"]
    schedule = {"start": 0.9, "end": 0.99, "ramp": 4}
    objective["teacher"] = schedule | {"copied": changes["copied"], "shared_features": changes["shares"]}
    objective["targets"] |= {"layers": 3}
    model = Data2Vec(setup.encoder(), changes["head"], build(Data2VecConfig, objective, name))
    student = {key[8:]: value for key, value in dumped.items() if key.startswith("weights/")}
    own = model.student.state_dict()
    translated = {key: value.reshape(own[key].shape) for key, value in translate(student).items() if key in own}
    assert set(own) == set(translated)
    model.student.load_state_dict(translated)
    prefix = "encoder.sentence_encoder." if name == "text" else "encoder."
    teacher = {prefix + key[9:]: value for key, value in dumped.items() if key.startswith("ema_init/")}
    teacher = {key: value for key, value in translate(teacher).items() if key in own}
    model.teacher.encoder.load_state_dict(translated | teacher)
    heads = {"text": "encoder.regression_head.", "speech": "final_proj.", "vision": "none."}
    own_head = {key.removeprefix(heads[name]): value for key, value in student.items() if key.startswith(heads[name])}
    model.head.load_state_dict(own_head)
    return model.train(), dumped


def head(name: str) -> nn.Module:
    if name == "vision":
        return nn.Identity()
    return nn.Linear(32, 32) if name == "speech" else nn.Sequential(nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 32))


CASES = {
    "speech": {
        "file": "audio",
        "trunk": {"feedforward": 96},
        "local": {"channels": 24, "position_layers": 5, "position_kernel": 19, "position_groups": 8},
        "objective": {},
        "copied": ["local."],
        "shares": True,
    },
    "text": {
        "file": "text",
        "table": {"vocabulary": 50, "tokens": 64},
        "trunk": {"feedforward": 96},
        "local": {"train_positions": True},
        "objective": {},
        "copied": ["local."],
        "shares": False,
    },
    # the reference's own port of vision: no head, one norm, a shared patch embedding (reference 3.9)
    "vision": {
        "file": "vision",
        "table": {"size": 48, "channels": 3},
        "trunk": {"feedforward": 128, "epsilon": 1e-5},
        "local": {"patch": 8, "positions": 0.0},
        "model": {
            "augment": dict.fromkeys(("turn", "jitter"), 0.0)
            | {"area": 1.0, "aspect": 1.0, "flip": False, "mean": [0.0] * 3, "std": [1.0] * 3}
        },
        "objective": {
            "targets": {"result": "block", "norm_each": [], "norm_mean": ["layer"]},
            "loss": {"beta": 2.0, "scale": "inverse_sqrt_width"},
        },
        "copied": ["local.patches", "local.class_token", "local.mask_token"],
        "shares": False,
    },
}


def inputs_of(name: str, dumped: dict[str, torch.Tensor], case: str) -> dict[str, torch.Tensor]:
    if name == "speech":
        inputs = {"inputs": dumped[f"{case}input/source"]}
    elif name == "vision":
        inputs = {"inputs": dumped["input/img"]}
    else:
        inputs = {"inputs": dumped["input/target_tokens"], "corrupted": dumped["input/src_tokens"]}
    mask = dumped[f"{case}mask"].bool()
    return inputs | {"mask": mask, "masked": mask.flatten().nonzero().squeeze(1)}


@pytest.mark.parametrize(("name", "case"), [("speech", "nopad/"), ("text", ""), ("vision", "")])
def test_targets_predictions_and_loss_are_the_references(name, case):
    model, dumped = golden(name, CASES[name] | {"head": head(name)})
    batch = inputs_of(name, dumped, case)
    loss = model(batch)
    real = torch.ones_like(batch["mask"]) if name != "text" else batch["inputs"] != 1
    torch.testing.assert_close(loss.targets[real], dumped[f"{case}target/y_full"][real], atol=2e-5, rtol=0)
    torch.testing.assert_close(loss.predictions, dumped[f"{case}student/x"], atol=2e-5, rtol=0)
    assert loss.total.item() == pytest.approx(dumped[f"{case}loss"].item(), rel=1e-5)
    assert int(loss.count) == int(dumped[f"{case}sample_size"])
    if f"{case}target_var" in dumped:
        assert spread(loss.masked_targets) == pytest.approx(float(dumped[f"{case}target_var"]), abs=2e-5)


@pytest.mark.parametrize("name", ["text", "vision"])
def test_six_losses_over_five_updates_are_the_references(name):
    model, dumped = golden(name, CASES[name] | {"head": head(name)})
    batch = inputs_of(name, dumped, "")
    trained = [*model.student.parameters(), *model.head.parameters()]
    for update in range(6):
        if update:
            model.begin_update(update)
        loss = model(batch)
        mean = loss.total / loss.count
        assert mean.item() == pytest.approx(dumped["trace/loss"][update].item(), rel=1e-5)
        gradients = torch.autograd.grad(mean, trained, allow_unused=True)
        with torch.no_grad():
            for parameter, gradient in zip(trained, gradients, strict=True):
                if gradient is not None:
                    parameter.sub_(0.1 * gradient)
