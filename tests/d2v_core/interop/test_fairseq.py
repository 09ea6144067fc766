"""Checkpoints of fairseq and BEiT become runs with the same features; whatever does not fit is named."""

import argparse
import json
import os
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from d2v_core.errors import UserError
from d2v_core.interop import fairseq_speech, fairseq_text, fairseq_v2, fairseq_vision
from d2v_core.interop.fairseq import make_run, read_file
from d2v_core.interop.names import to_theirs
from d2v_core.modalities.vision import sincos
from d2v_core.model.decoder import DecoderConfig
from d2v_core.model.encoder import Encoder
from d2v_core.model.supervised import head_layers
from d2v_core.setup import Setup, make_setup
from tests.d2v_core.blocks import small_block

GOLDEN = Path(__file__).parents[4] / "shared" / "golden"
golden = pytest.mark.skipif(not GOLDEN.is_dir(), reason="the golden numbers are not beside this checkout")
CONVOLUTIONS = "[(8, 10, 5)] + [(8, 3, 2)] * 4 + [(8,2,2)] + [(8,2,2)]"


def random_weights(module: torch.nn.Module, prefix: str = "") -> dict[str, Tensor]:
    return {prefix + name: torch.randn_like(tensor) for name, tensor in module.state_dict().items()}


def small(name: str, local: Mapping = {}, trunk: Mapping = {}) -> tuple[Setup, dict[str, Tensor]]:
    """Return a small setup of a modality and random weights of its encoder."""
    torch.manual_seed(0)
    block = small_block(name)
    block["model"]["local"] |= local
    block["model"]["trunk"] |= trunk
    setup = make_setup(name, block, name)
    return setup, random_weights(setup.encoder())


def encoder_of(config: Mapping, weights: Mapping[str, Tensor], part: str = "encoder.") -> Encoder:
    encoder = make_setup(config["modality"], config, "test").encoder().eval()
    encoder.load_state_dict({n.removeprefix(part): tensor for n, tensor in weights.items() if n.startswith(part)})
    return encoder


def save(path: Path, model: Mapping, archive: bool = True, **beside: object) -> Path:
    torch.save({"model": model, **beside}, path, _use_new_zipfile_serialization=archive)
    return path


def same(weights: Mapping[str, Tensor], expected: Mapping[str, Tensor], prefix: str) -> bool:
    found = {name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)}
    return found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in expected)


def small_2(name: str) -> tuple[Setup, dict[str, Tensor]]:
    """Return a small setup of a modality in version 2, and random weights of its encoder."""
    torch.manual_seed(0)
    setup = make_setup(name, small_block(name, version=2), name)
    return setup, random_weights(setup.encoder())


def wrapped(theirs: Mapping[str, Tensor], modality: str) -> dict[str, Tensor]:
    """Return tensors of version 2 by the names they have in a fine-tuned file, with the first block in front."""
    named = {}
    for name, tensor in theirs.items():
        inner = f"modality_encoders.{modality}.{name}"
        if name.startswith("blocks.0."):
            inner = f"modality_encoders.{modality}.context_encoder.{name}"
        elif name.startswith("blocks.1."):
            inner = name.replace("blocks.1.", "blocks.0.")
        named[f"model.{inner}"] = tensor
    return named


def speech_model() -> tuple[Setup, dict[str, Tensor], dict[str, Tensor], dict]:
    """Return a setup, weights of ours, the same by fairseq's names, and the settings that sizes do not tell."""
    setup, ours = small("speech")
    model = {"encoder_attention_heads": 2, "conv_feature_layers": CONVOLUTIONS, "dropout": 0.2, "_name": "data2vec"}
    return setup, ours, to_theirs(ours, fairseq_speech.NAMES), model


def text_model() -> tuple[Setup, dict[str, Tensor], dict[str, Tensor]]:
    setup, ours = small("text", {"train_positions": True})
    return setup, ours, to_theirs(ours, fairseq_text.NAMES)


def vision_model(bias: str = "shared", final_norm: bool = True) -> tuple[Setup, dict, dict]:
    """Return a setup, weights of ours, and the same by BEiT's names."""
    setup, ours = small("vision", {"bias": bias, "positions": 0.0}, {"final_norm": final_norm})
    theirs = to_theirs(ours, fairseq_vision.NAMES)
    if bias == "block":
        tables = theirs.pop("rel_pos_bias.relative_position_bias_table")
        theirs |= {f"blocks.{i}.attn.relative_position_bias_table": table for i, table in enumerate(tables)}
    return setup, ours, theirs


@golden
def test_features_of_the_golden_speech_checkpoint_are_the_references():
    config, weights = read_file(GOLDEN / "checkpoints" / "v1_audio.pt")
    dumped = load_file(GOLDEN / "pretrain" / "v1_audio.safetensors")
    x = encoder_of(config, weights)({"inputs": dumped["input/source"][:1]}).x  # row 0 is the one without padding
    torch.testing.assert_close(x, dumped["extract/x"][:1], atol=2e-5, rtol=0)
    torch.testing.assert_close(weights["head.weight"], dumped["weights/final_proj.weight"], atol=0, rtol=0)
    local, trunk = config["model"]["local"], config["model"]["trunk"]
    assert (local["channels"], local["kernels"], local["strides"]) == (
        24,
        (10, 3, 3, 3, 3, 2, 2),
        (5, 2, 2, 2, 2, 2, 2),
    )
    assert (local["position_layers"], local["position_kernel"], local["position_groups"]) == (5, 19, 8)
    assert (trunk["width"], trunk["depth"], trunk["heads"], trunk["feedforward"]) == (32, 4, 4, 96)
    assert config["model"]["mask"] == {"kind": "spans", "probability": 0.65, "length": 4}
    assert "encoder_attention_heads" not in config["assumed"]
    assert "head" not in config


@golden
def test_features_of_the_golden_text_checkpoint_are_the_references():
    config, weights = read_file(GOLDEN / "checkpoints" / "v1_text.pt")
    dumped = load_file(GOLDEN / "pretrain" / "v1_text.safetensors")
    tokens = dumped["input/target_tokens"]
    x = encoder_of(config, weights)({"inputs": tokens}).x
    torch.testing.assert_close(x[tokens != 1], dumped["extract/x"][tokens != 1], atol=2e-5, rtol=0)
    assert config["table"] == {"vocabulary": 50, "tokens": 64}
    assert {name for name in weights if name.startswith("head.")} == {
        f"head.{layer}.{part}" for layer in (0, 2) for part in ("weight", "bias")
    }


@golden
def test_features_and_teacher_of_the_ported_vision_model_are_the_references(tmp_path):
    dumped = load_file(GOLDEN / "pretrain" / "v1_vision.safetensors")
    model = {name.removeprefix("weights/"): tensor for name, tensor in dumped.items() if name.startswith("weights/")}
    model["_ema"] = {name.removeprefix("ema_init/"): t for name, t in dumped.items() if name.startswith("ema_init/")}
    config, weights = read_file(save(tmp_path / "port.pt", model, cfg={"model": {"num_mask_patches": 21}}))
    encoder = encoder_of(config, weights)
    x = encoder({"inputs": dumped["input/img"]}).x
    torch.testing.assert_close(x, dumped["extract/x"], atol=2e-5, rtol=0)
    assert config["table"] == {"size": 48, "channels": 3, "margin": 0}
    assert int(config["model"]["mask"]["share"] * 36) == 21
    teacher = encoder_of(config, weights, "teacher.")
    assert torch.equal(teacher.trunk.final_norm.weight, dumped["ema_init/norm.weight"])
    assert torch.equal(teacher.local.patches.weight, dumped["weights/patch_embed.conv.weight"])
    outputs = teacher({"inputs": dumped["input/img"]}).outputs
    torch.testing.assert_close(outputs[-1], dumped["target/layer_3"], atol=2e-5, rtol=0)


@golden
@pytest.mark.parametrize("name", ["audio", "image", "text"])
def test_features_of_the_golden_checkpoints_of_version_2_are_the_references(name):
    config, weights = read_file(GOLDEN / "checkpoints" / f"v2_{name}.pt")
    dumped = load_file(GOLDEN / "pretrain" / f"v2_{name}.safetensors")
    inputs, expected = dumped["input/source"], dumped["extract/x"]
    if name == "audio":
        inputs, expected = inputs[:1], expected[:1]  # row 0 is the one without padding
    encoded = encoder_of(config, weights)({"inputs": inputs})
    x = torch.cat([encoded.extra, encoded.x], dim=1)
    real = torch.ones(x.shape[:2], dtype=torch.bool) if name != "text" else inputs != 1
    torch.testing.assert_close(x[real], expected[real], atol=2e-5, rtol=0)
    assert (config["version"], config["ignored"]) == (2, [])
    teacher = encoder_of(config, weights, "teacher.")
    last = f"blocks.{2 if name == 'image' else 3}.mlp.fc1.weight".removeprefix("blocks." if name == "text" else "")
    expected = dumped[f"ema/{last}"]
    assert torch.equal(teacher.trunk.blocks[-1].feedforward.expand.weight, expected)
    head = {n.removeprefix("head."): tensor for n, tensor in weights.items() if n.startswith("head.")}
    decoder = {"layers": 3, "dropout": 0.0, "residual": True, "projection": 2 if name == "text" else 1}
    sizes = {"audio": (24, 7, 4), "image": (32, 3, 4), "text": (32, 9, 1)}[name]
    decoder |= dict(zip(("channels", "kernel", "groups"), sizes, strict=True))
    setup = make_setup(config["modality"], config, "test")
    setup.modality.decoder(setup.trunk, DecoderConfig(**decoder)).load_state_dict(head)


BASE = {  # parameters of the encoder (reference 2.7, 3.7, 4.4, 5.13 to 5.15)
    "v1_audio": 93_164_288,
    "v1_text": 124_054_272,
    "v1_vision": 86_256_720 - 590_592,
    "v2_audio": 93_163_532,
    "v2_image": 85_647_360,
    "v2_text": 124_054_272,
}


@golden
@pytest.mark.parametrize("name", BASE)
def test_every_tensor_of_the_published_base_models_has_its_place(name):
    keys = json.loads((GOLDEN / "statedict_keys" / f"{name}_base.json").read_text())
    with torch.device("meta"):
        student, teacher = (
            {key: torch.empty(said["shape"]) for key, said in keys[f"{part}_state_dict"].items()}
            for part in ("model", "ema")
        )
    if name == "v2_image":
        student["modality_encoders.IMAGE.fixed_positional_encoder.positions"] = sincos(14, 768)
    config, weights = make_run(student, teacher, {}, Path("base.pt"))
    sizes = {part: sum(t.numel() for n, t in weights.items() if n.startswith(part)) for part in ("encoder", "teacher")}
    assert sizes == {"encoder": BASE[name], "teacher": BASE[name]}
    assert any(key.startswith("head.") for key in weights)
    assert config["ignored"] == []
    trunk = config["model"]["trunk"]
    assert (trunk["width"], trunk["depth"], trunk["heads"], trunk["feedforward"]) == (768, 12, 12, 3072)


@golden
@pytest.mark.parametrize(("name", "prefix"), [("audio", "encoder."), ("text", "encoder.sentence_encoder.")])
def test_the_teacher_is_the_averages_over_the_student(name, prefix):
    config, weights = read_file(GOLDEN / "checkpoints" / f"v1_{name}.pt")
    dumped = load_file(GOLDEN / "pretrain" / f"v1_{name}.safetensors")
    averaged, student = dumped["ema/layers.2.fc1.weight"], dumped[f"weights/{prefix}layers.2.fc1.weight"]
    assert not torch.equal(averaged, student)
    assert torch.equal(weights["teacher.trunk.blocks.2.feedforward.expand.weight"], averaged)
    assert torch.equal(weights["encoder.trunk.blocks.2.feedforward.expand.weight"], student)
    if name == "audio":  # the file has no average of it
        assert torch.equal(weights["teacher.local.projection.weight"], dumped["weights/post_extract_proj.weight"])
    encoder_of(config, weights, "teacher.")


@pytest.mark.parametrize("archive", [True, False], ids=["archive", "stream"])
@pytest.mark.parametrize("head", ["final_proj", "final_proj.0"])
def test_a_pretrained_speech_model(tmp_path, head, archive):
    setup, ours, theirs, settings = speech_model()
    theirs |= {f"{head}.weight": torch.ones(16, 16), f"{head}.bias": torch.zeros(16)}
    cfg = {"model": settings, "task": {"sample_rate": 16000, "max_sample_size": 160000, "min_sample_size": 8000}}
    config, weights = read_file(save(tmp_path / "speech.pt", theirs, archive, cfg=cfg))
    assert same(weights, ours, "encoder.")
    assert torch.equal(weights["head.weight"], torch.ones(16, 16))
    assert not any(name.startswith("teacher.") for name in weights)
    described = setup.describe()["model"]
    assert config["model"]["local"] == described["local"] | {"taps": "free"}
    assert config["model"]["crop"] == {"min_seconds": 0.5, "max_seconds": 10.0}
    assert config["model"]["trunk"]["dropout"] == 0.2
    assert (config["source"], config["ignored"]) == ("speech.pt", [])
    json.dumps(config)


def ctc_model(rows: int, **beside: object) -> tuple[dict[str, Tensor], dict[str, Tensor], dict]:
    _, ours, theirs, settings = speech_model()
    model = {f"w2v_encoder.w2v_model.{name}": tensor.half() for name, tensor in theirs.items()}
    model |= {"w2v_encoder.proj.weight": torch.randn(rows, 16), "w2v_encoder.proj.bias": torch.randn(rows)}
    cfg = {"model": {"layerdrop": 0.1, "activation_dropout": 0.1, "w2v_args": argparse.Namespace(model=settings)}}
    return ours, model, {"cfg": cfg, **beside}


def test_a_speech_model_fine_tuned_by_ctc(tmp_path):
    ours, model, beside = ctc_model(32)
    config, weights = read_file(save(tmp_path / "ctc.pt", model, **beside))
    assert same(weights, {name: tensor.half().float() for name, tensor in ours.items()}, "encoder.")
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}
    assert torch.equal(weights["head.weight"], model["w2v_encoder.proj.weight"])
    assert (config["head"], len(config["symbols"])) == ("ctc", 32)
    assert config["symbols"][:6] == ["<s>", "<pad>", "</s>", "<unk>", "|", "E"]
    assert len(set(config["symbols"])) == 32
    trunk = config["model"]["trunk"]
    assert (trunk["heads"], trunk["dropout"], trunk["layer_drop"], trunk["activation_dropout"]) == (2, 0.2, 0.1, 0.1)


class Dictionary:
    """Stands for fairseq's dictionary of letters."""

    def __init__(self, symbols: list[str]) -> None:
        self.symbols = symbols


def test_letters_are_the_files_own_or_numbers(tmp_path):
    _, model, beside = ctc_model(5)
    letters = ["<s>", "<pad>", "</s>", "<unk>", "Ä"]
    state = {"task_state": {"target_dictionary": Dictionary(letters)}}
    assert read_file(save(tmp_path / "a.pt", model, **beside, **state))[0]["symbols"] == letters
    assert read_file(save(tmp_path / "b.pt", model, **beside))[0]["symbols"] == list("01234")


def test_a_pretrained_text_model_with_the_keys_of_old_files(tmp_path):
    setup, ours, theirs = text_model()
    names = {name: name.replace("encoder.", "decoder.", 1).replace("layernorm_", "emb_layer_norm_") for name in theirs}
    names = {name: old.replace("emb_layer_norm_embedding", "emb_layer_norm") for name, old in names.items()}
    old = {names[name]: tensor for name, tensor in theirs.items()}
    old["decoder.sentence_encoder.version"] = torch.tensor([3.0])
    old |= {f"decoder.lm_head.{i}.{part}": torch.ones(2) for i in (0, 2) for part in ("weight", "bias")}
    assert not old.keys() & theirs.keys()
    arguments = argparse.Namespace(encoder_attention_heads=2, mask_prob=0.2, mask_multiple_length=1)
    config, weights = read_file(save(tmp_path / "old.pt", old, args=arguments))
    assert same(weights, ours, "encoder.")
    assert sorted(name for name in weights if name.startswith("head.")) == [
        "head.0.bias", "head.0.weight", "head.2.bias", "head.2.weight",
    ]  # fmt: skip
    assert config["table"] == setup.describe()["table"]
    assert (config["model"]["mask"]["probability"], config["model"]["mask"]["length"]) == (0.2, 1)
    assert (config["model"]["trunk"]["heads"], config["ignored"]) == (2, [])


def test_a_text_model_fine_tuned_for_classes(tmp_path):
    _, ours, theirs = text_model()
    head = random_weights(head_layers("first", 16, 3))
    prefix = "classification_heads.sentence_classification_head."
    theirs |= {f"{prefix}dense.{part}": head[f"0.{part}"] for part in ("weight", "bias")}
    theirs |= {f"{prefix}out_proj.{part}": head[f"2.{part}"] for part in ("weight", "bias")}
    theirs |= {"encoder.lm_head.dense.weight": torch.ones(2), "encoder.lm_head.bias": torch.ones(2)}
    config, weights = read_file(save(tmp_path / "classes.pt", theirs))
    assert same(weights, ours, "encoder.")
    assert same(weights, head, "head.")
    assert (config["head"], config["symbols"], config["ignored"]) == ("first", ["0", "1", "2"], [])
    assert config["assumed"]["attention_heads"] == 1


@pytest.mark.parametrize("bias", ["shared", "block"])
@pytest.mark.parametrize("key", ["model", "module"])
def test_a_pretrained_beit_model(tmp_path, bias, key):
    setup, ours, theirs = vision_model(bias)
    theirs |= {"lm_head.weight": torch.ones(16, 16), "lm_head.bias": torch.zeros(16)}
    index = {"shared": ["rel_pos_bias"], "block": ["blocks.0.attn", "blocks.1.attn"]}[bias]
    theirs |= {f"{name}.relative_position_index": torch.zeros(17, 17, dtype=torch.int64) for name in index}
    arguments = argparse.Namespace(drop_path=0.3, attn_drop_rate=0.1, num_mask_patches=9, epochs=800)
    path = tmp_path / "beit.pth"
    torch.save({key: theirs, "args": arguments, "optimizer": {}, "epoch": 7}, path)
    config, weights = read_file(path)
    assert same(weights, ours, "encoder.")
    assert torch.equal(weights["head.weight"], torch.ones(16, 16))
    assert config["table"] == setup.describe()["table"]
    assert config["model"]["local"] == setup.describe()["model"]["local"]
    trunk = config["model"]["trunk"]
    assert (trunk["heads"], trunk["drop_path"], trunk["attention_dropout"], trunk["epsilon"]) == (2, 0.3, 0.1, 1e-6)
    assert (trunk["final_norm"], trunk["key_bias"], trunk["layer_scale"]) == (True, False, 1e-4)
    assert int(config["model"]["mask"]["share"] * 16) == 9
    assert config["ignored"] == []


@pytest.mark.parametrize("kind", ["mean", "class"])
def test_a_fine_tuned_beit_model(tmp_path, kind):
    _, ours, theirs = vision_model("block", final_norm=kind == "class")
    head = random_weights(head_layers(kind, 16, 10))
    names = {"0": "fc_norm", "1": "head"} if kind == "mean" else {}
    for name, tensor in head.items():
        layer, _, part = name.rpartition(".")
        theirs[f"{names.get(layer, 'head')}.{part}"] = tensor
    config, weights = read_file(save(tmp_path / "tuned.pth", {f"module.{n}": t for n, t in theirs.items()}))
    assert same(weights, ours, "encoder.")
    assert same(weights, head, "head.")
    assert (config["head"], len(config["symbols"])) == (kind, 10)
    assert config["model"]["trunk"]["final_norm"] == (kind == "class")
    assert config["model"]["augment"]["mean"] == (0.5,)
    assert config["model"]["local"]["bias"] == "block"


def test_models_of_version_2_fine_tuned_for_images_and_classes_of_text(tmp_path):
    setup, ours = small_2("vision")
    theirs = to_theirs(ours, fairseq_v2.IMAGE_NAMES)
    theirs |= {"fixed_positional_encoder.positions": setup.encoder().local.positions}
    theirs = wrapped(theirs, "IMAGE")
    head = random_weights(head_layers("mean", 16, 4))
    theirs |= {f"fc_norm.{part}": head[f"0.{part}"] for part in ("weight", "bias")}
    theirs |= {f"head.{part}": head[f"1.{part}"] for part in ("weight", "bias")}
    settings = {"pretrained_model_args": {"model": {"num_heads": 2}}}
    config, weights = read_file(save(tmp_path / "images.pt", theirs, cfg={"model": settings}))
    assert same(weights, ours, "encoder.")
    assert same(weights, head, "head.")
    assert (config["head"], config["version"], config["model"]["trunk"]["heads"]) == ("mean", 2, 2)

    _, ours = small_2("text")
    theirs = wrapped(to_theirs(ours, fairseq_v2.TEXT_NAMES), "TEXT")
    head = random_weights(head_layers("first", 16, 2))
    names = {"0": "dense", "2": "out_proj"}
    theirs |= {f"classification_heads.mine.{names[name[0]]}{name[1:]}": tensor for name, tensor in head.items()}
    config, weights = read_file(save(tmp_path / "text.pt", theirs))
    assert same(weights, ours, "encoder.")
    assert same(weights, head, "head.")


def test_what_the_file_does_not_say_is_as_published_and_listed(tmp_path):
    theirs = speech_model()[2]
    config, _ = read_file(save(tmp_path / "bare.pt", theirs))
    assert config["assumed"]["strides"] == [5, 2, 2, 2, 2, 2, 2]
    assert config["assumed"]["encoder_attention_heads"] == 1
    assert config["model"]["trunk"]["layer_drop"] == 0.05
    config, _ = read_file(
        save(tmp_path / "unset.pt", theirs, cfg={"model": {"dropout": "${task.x}", "mask_prob": "?"}})
    )
    assert (config["assumed"]["dropout"], config["assumed"]["mask_prob"]) == (0.1, 0.65)


def test_a_bare_state_dict_is_read_too(tmp_path):
    _, ours, theirs = vision_model()
    torch.save(theirs, tmp_path / "state.pth")
    assert same(read_file(tmp_path / "state.pth")[1], ours, "encoder.")


def test_tensors_without_a_place_are_listed_but_not_within_the_encoder(tmp_path):
    _, ours, theirs, settings = speech_model()
    cfg = {"model": settings}
    extra = {"label_embs_concat": torch.ones(3), "project_q.weight": torch.ones(2), "criterion.x": torch.ones(1)}
    config, weights = read_file(save(tmp_path / "extra.pt", theirs | extra, cfg=cfg))
    assert config["ignored"] == ["criterion.x", "label_embs_concat"]
    assert same(weights, ours, "encoder.")
    for name in ("encoder.pos_conv.0.weight_g", "feature_extractor.conv_layers.0.0.bias", "encoder.layers.0.adapter.x"):
        with pytest.raises(UserError, match=rf"no encoder here has, such as {name}"):
            read_file(save(tmp_path / "other.pt", {**theirs, name: torch.ones(2)}, cfg=cfg))
    vision = vision_model()[2]
    with pytest.raises(UserError, match="pos_embed"):
        read_file(save(tmp_path / "positions.pt", vision | {"pos_embed": torch.ones(1, 17, 16)}))


@pytest.mark.parametrize(
    "name",
    [
        "encoder.layers.1.self_attn.k_proj.bias",
        "encoder.layers.0.fc1.weight",
        "layer_norm.weight",
        "post_extract_proj.bias",
    ],
)
def test_missing_tensors_are_named(tmp_path, name):
    theirs = speech_model()[2]
    del theirs[name]
    with pytest.raises(UserError, match=rf"missing\.pt lacks .*{name}"):
        read_file(save(tmp_path / "missing.pt", theirs))


def test_tensors_of_another_shape_are_named(tmp_path):
    theirs = speech_model()[2]
    theirs["encoder.layers.1.fc2.bias"] = torch.ones(17)
    with pytest.raises(UserError, match=r"encoder\.layers\.1\.fc2\.bias of shape \[17\], not \[16\]"):
        read_file(save(tmp_path / "shape.pt", theirs))
    theirs = speech_model()[2]
    with pytest.raises(UserError, match=r"heads\.pt.*multiple of heads"):
        read_file(save(tmp_path / "heads.pt", theirs, cfg={"model": {"encoder_attention_heads": 3}}))


def test_other_models_are_refused(tmp_path):
    for content in ({"model": {}}, {"model": {"x": 1}}, [1, 2], {}):
        torch.save(content, tmp_path / "other.pt")
        with pytest.raises(UserError, match="holds no model's weights"):
            read_file(tmp_path / "other.pt")
    with pytest.raises(UserError, match=r"no data2vec model .*conv1\.weight"):
        read_file(save(tmp_path / "resnet.pt", {"conv1.weight": torch.ones(2)}))
    theirs = speech_model()[2]
    with pytest.raises(UserError, match="layer_norm_first"):
        read_file(save(tmp_path / "first.pt", theirs, cfg={"model": {"layer_norm_first": True}}))
    vision = vision_model()[2]
    vision["rel_pos_bias.relative_position_bias_table"] = torch.ones(50, 2)
    with pytest.raises(UserError, match="no grid of patches"):
        read_file(save(tmp_path / "grid.pt", vision))


class Hostile:
    """Runs a command when a real unpickler reads it."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def test_hostile_settings_are_without_effect_and_hostile_weights_an_error(tmp_path):
    canary = tmp_path / "canary"
    touch = Hostile(f"touch {canary}")
    theirs, settings = speech_model()[2:]
    cfg = {"model": settings | {"dropout": touch, "w2v_args": touch}, "task": touch}
    config, _ = read_file(save(tmp_path / "settings.pt", theirs, cfg=cfg, task_state=touch, extra_state=[touch]))
    assert config["assumed"]["dropout"] == 0.1
    with pytest.raises(UserError, match=r"model\.mask_emb is no tensor but posix\.system"):
        read_file(save(tmp_path / "weights.pt", theirs | {"mask_emb": touch}))
    assert not canary.exists()
