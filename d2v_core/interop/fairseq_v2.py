"""fairseq's data2vec 2.0 for speech, images and text: names, and a configuration from sizes (reference 5, 8.4).

The blocks of the context encoder ("prenet") come before the main ones, whose numbers begin again at 0.
"""

import re
from functools import partial

import torch
from torch import Tensor

from d2v_core.errors import UserError
from d2v_core.interop import fairseq_speech, fairseq_text, fairseq_vision
from d2v_core.interop.layout import Layout, Tensors, count, heads_of, strip
from d2v_core.interop.settings import Settings
from d2v_core.interop.trunks import POST_NORM
from d2v_core.modalities.vision import sincos

FIRST, BLOCKS = "context_encoder.blocks.", "blocks."
ALIBI, POSITIONS = "alibi_scale", "fixed_positional_encoder.positions"
NAMES = {
    "trunk.input_norm.*": "context_encoder.norm.*",
    "trunk.blocks.#.attention.qkv.*": "blocks.#.attn.qkv.*",
    "trunk.blocks.#.attention.output.*": "blocks.#.attn.proj.*",
    "trunk.blocks.#.attention_norm.*": "blocks.#.norm1.*",
    "trunk.blocks.#.feedforward.expand.*": "blocks.#.mlp.fc1.*",
    "trunk.blocks.#.feedforward.contract.*": "blocks.#.mlp.fc2.*",
    "trunk.blocks.#.feedforward_norm.*": "blocks.#.norm2.*",
}
SPEECH_NAMES = NAMES | {
    "local.extractor.#.weight": "local_encoder.conv_layers.#.0.weight",
    "local.extractor.#.norm.*": "local_encoder.conv_layers.#.2.1.*",
    "local.feature_norm.*": "project_features.1.*",
    "local.projection.*": "project_features.2.*",
    "local.positions.#.convolution.*": "relative_positional_encoder.#.0.*",
    "local.alibi_scale": ALIBI,
}
IMAGE_NAMES = NAMES | {"local.patches.*": "local_encoder.proj.*", "local.class_token": "extra_tokens"}
TEXT_NAMES = NAMES | {
    "local.tokens.*": "local_encoder.embed_tokens.*",
    "local.positions.*": "local_encoder.embed_positions.*",
    "local.norm.*": "local_encoder.layernorm_embedding.*",
}
DECODER = {
    "head.blocks.#.convolution.*": "decoder.blocks.#.0.*",
    "head.projection.0.*": "decoder.proj.*",
    "head.projection.#.*": "decoder.proj.#.*",
}
INSIDE = (
    *("local_encoder.", "project_features.", "relative_positional_encoder.", "alibi_", "context_encoder.", "blocks."),
    *("extra_tokens", "fixed_positional_encoder.", "norm."),
)


def clean(tensors: Tensors, modality: str) -> dict[str, Tensor]:
    """Return the tensors of a modality without what wraps their names, with all blocks numbered through."""
    for prefix in ("w2v_encoder.w2v_model.", "model.", f"modality_encoders.{modality}."):
        tensors = strip(tensors, prefix)
    depth = count(tensors, f"{FIRST}#.norm1.weight")
    renamed = {}
    for name, tensor in tensors.items():
        number = re.match(rf"{BLOCKS}(\d+)\.", name)
        later = number and f"{BLOCKS}{int(number[1]) + depth}.{name[number.end() :]}"
        renamed[later or re.sub(rf"^{FIRST}", BLOCKS, name)] = tensor
    return renamed


def clean_speech(tensors: Tensors) -> dict[str, Tensor]:
    """Return the tensors with positional convolutions numbered from 0, and one slope of ALiBi per head, [H, 1, 1]."""
    renamed = {}
    for name, tensor in clean(tensors, "AUDIO").items():
        number = re.match(r"relative_positional_encoder\.(\d+)\.", name)
        earlier = number and f"relative_positional_encoder.{int(number[1]) - 1}.{name[number.end() :]}"
        renamed[earlier or name] = tensor.reshape(-1, 1, 1) if name == ALIBI else tensor
    return renamed


def clean_text(tensors: Tensors) -> dict[str, Tensor]:
    """Return the tensors with those of the first classification head without its own name."""
    return fairseq_text.first_head(clean(tensors, "TEXT"))


def trunk_block(tensors: Tensors, settings: Settings, epsilon: float, dropout: float, layer_drop: float) -> dict:
    """Return the block ``trunk`` (5.6, 5.13 to 5.15); the last three are the published values of a modality."""
    if settings.find("layer_norm_first") is True:
        raise UserError("the file has layer_norm_first: true; only encoders that normalise last can be read.")
    expand = tensors["blocks.0.mlp.fc1.weight"]
    return {
        "width": expand.shape[1],
        "depth": count(tensors, "blocks.#.mlp.fc1.weight"),
        "heads": heads_of(expand.shape[1], settings, "num_heads"),
        "feedforward": expand.shape[0],
        **POST_NORM,
        "input_norm": "context_encoder.norm.weight" in tensors,
        "epsilon": settings.get(epsilon, "norm_eps"),
        "dropout": settings.get(dropout, "encoder_dropout"),
        "attention_dropout": settings.get(dropout, "attention_dropout"),
        "activation_dropout": settings.get(0.0, "activation_dropout"),
        "layer_drop": settings.get(layer_drop, "layerdrop"),
        "drop_path": settings.get(0.0, "drop_path", "end_drop_path_rate"),
        "init_std": 0.02,
    }


def speech_block(tensors: Tensors, settings: Settings, head: str | None) -> dict:
    """Return version, ``table`` and ``model`` of speech (5.13)."""
    names = (SPEECH_NAMES["local.extractor.#.weight"], "relative_positional_encoder.#.0.weight")
    table = fairseq_speech.table_block(settings)
    return {
        "version": 2,
        "table": table,
        "model": {
            "crop": fairseq_speech.crop_block(settings, table["sample_rate"]),
            "mask": {
                "kind": "blocks",
                "share": settings.get(0.5, "modalities.audio.mask_prob"),
                "adjust": settings.get(0.05, "modalities.audio.mask_prob_adjust"),
                "length": settings.get(5, "modalities.audio.mask_length"),
            },
            "local": fairseq_speech.local_block(tensors, settings, *names),
            "trunk": trunk_block(tensors, settings, 1e-5, 0.1, 0.05),
        },
    }


def image_block(tensors: Tensors, settings: Settings, head: str | None) -> dict:
    """Return version, ``table`` and ``model`` of images (5.14); raise UserError for learned positions."""
    width, channels, patch, _ = tensors["local_encoder.proj.weight"].shape
    positions = tensors[POSITIONS]
    side = round(positions.shape[1] ** 0.5)
    expected = sincos(min(side, fairseq_vision.LARGEST_SIDE), width)
    if expected.shape != positions.shape or not torch.allclose(expected, positions.float(), atol=1e-3):
        raise UserError(f"{POSITIONS} is not the fixed table of sines and cosines; such models cannot be read.")
    augment = {"area": 0.2, "aspect": 0.75, "turn": 0.0, "flip": True, "jitter": 0.0}
    return {
        "version": 2,
        "table": {"size": side * patch, "channels": channels},
        "model": {
            "augment": augment | fairseq_vision.normalisation(channels, imagenet=True),
            "mask": {
                "kind": "inverse_blocks",
                "share": settings.get(0.8, "modalities.image.mask_prob"),
                "adjust": settings.get(0.07, "modalities.image.mask_prob_adjust"),
                "length": settings.get(3, "modalities.image.mask_length"),
            },
            "local": {"patch": patch, "positions": 1.0, "bias": "none", "mask_token": False, "class_std": 1.0},
            "trunk": trunk_block(tensors, settings, 1e-6, 0.0, 0.0),
        },
    }


def text_block(tensors: Tensors, settings: Settings, head: str | None) -> dict:
    """Return version, ``table`` and ``model`` of text (5.15)."""
    tokens, positions = (tensors[f"local_encoder.embed_{part}.weight"] for part in ("tokens", "positions"))
    dropout = settings.get(0.1, "modalities.text.dropout")
    return {
        "version": 2,
        "table": fairseq_text.table_block(tokens, positions),
        "model": {
            "mask": {"kind": "random", "share": settings.get(0.48, "modalities.text.mask_prob")},
            "local": {"position_std": 0.02, "train_positions": True, "dropout": dropout},
            "trunk": trunk_block(tensors, settings, 1e-5, 0.1, 0.0),
        },
    }


LAYOUT = partial(Layout, version=2, predicts=(DECODER,), inside=INSIDE, harmless=r"decoder\..*", teacher="")
SPEECH = LAYOUT(
    modality="speech",
    sign="local_encoder.conv_layers.0.0.weight",
    names=SPEECH_NAMES,
    heads=fairseq_speech.LAYOUT.heads,
    clean=clean_speech,
    block=speech_block,
)
IMAGES = LAYOUT(
    modality="vision",
    sign="local_encoder.proj.weight",
    names=IMAGE_NAMES,
    heads={"mean": fairseq_vision.HEADS["mean"]},
    harmless=r"decoder\..*|fixed_positional_encoder\.positions",
    clean=partial(clean, modality="IMAGE"),
    block=image_block,
)
TEXT = LAYOUT(
    modality="text",
    sign="local_encoder.embed_tokens.weight",
    names=TEXT_NAMES,
    heads=fairseq_text.LAYOUT.heads,
    teacher=BLOCKS,
    clean=clean_text,
    block=text_block,
)
