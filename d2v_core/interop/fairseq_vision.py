"""BEiT's data2vec for images, and fairseq's port of it: names, and a configuration from sizes (3, 6.3, 8.3)."""

import dataclasses
import math
import re
from functools import partial

import torch
from torch import Tensor

from d2v_core.errors import UserError
from d2v_core.interop.layout import Layout, Tensors, count, heads_of, strip
from d2v_core.interop.settings import Settings

LARGEST_SIDE = 128  # patches along a side
LARGE = 1024  # the width from which the published values are those of ViT-L
IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
TABLE = "relative_position_bias_table"
PORTED = (  # what fairseq's port calls it, and BEiT
    (r"^cls_emb$", "cls_token"),
    (r"^mask_emb$", "mask_token"),
    (r"^patch_embed\.conv\.", "patch_embed.proj."),
    (r"^final_proj\.", "lm_head."),
    (r"\.mlp\.0\.", ".mlp.fc1."),
    (r"\.mlp\.2\.", ".mlp.fc2."),
)
HEADS = {
    "mean": {"head.0.*": "fc_norm.*", "head.1.*": "head.*"},
    "class": {"head.*": "head.*"},
}
NAMES = {
    "local.patches.*": "patch_embed.proj.*",
    "local.class_token": "cls_token",
    "local.mask_token": "mask_token",
    "local.relative_bias": f"rel_pos_bias.{TABLE}",
    "trunk.blocks.#.attention.qkv.*": "blocks.#.attn.qkv.*",
    "trunk.blocks.#.attention.query_bias": "blocks.#.attn.q_bias",
    "trunk.blocks.#.attention.value_bias": "blocks.#.attn.v_bias",
    "trunk.blocks.#.attention.output.*": "blocks.#.attn.proj.*",
    "trunk.blocks.#.attention_norm.*": "blocks.#.norm1.*",
    "trunk.blocks.#.attention_scale": "blocks.#.gamma_1",
    "trunk.blocks.#.feedforward.expand.*": "blocks.#.mlp.fc1.*",
    "trunk.blocks.#.feedforward.contract.*": "blocks.#.mlp.fc2.*",
    "trunk.blocks.#.feedforward_norm.*": "blocks.#.norm2.*",
    "trunk.blocks.#.feedforward_scale": "blocks.#.gamma_2",
    "trunk.final_norm.*": "norm.*",
}


def clean(tensors: Tensors) -> dict[str, Tensor]:
    """Return the tensors with the tables of all blocks, where each has one, stacked to one [L, entries, H]."""
    pattern = f"blocks.#.attn.{TABLE}"
    names = [pattern.replace("#", str(number)) for number in range(count(tensors, pattern))]
    kept = {name: tensor for name, tensor in tensors.items() if name not in names}
    return kept | {f"rel_pos_bias.{TABLE}": torch.stack([tensors[name] for name in names])} if names else kept


def clean_port(tensors: Tensors) -> dict[str, Tensor]:
    """Return the tensors of fairseq's port by the names of BEiT."""
    renamed = {}
    for name, tensor in strip(tensors, "encoder.").items():
        for pattern, replacement in PORTED:
            name = re.sub(pattern, replacement, name)  # noqa: PLW2901 - one name, changed step by step
        renamed[name] = tensor
    return clean(renamed)


def sizes(tensors: Tensors, settings: Settings) -> tuple[int, int]:
    """Return the side of a patch in pixels, and the patches along a side of the image; raise UserError."""
    patch = tensors["patch_embed.proj.weight"].shape[-1]
    table = tensors.get(f"rel_pos_bias.{TABLE}")
    rows = 0 if table is None else table.shape[-2]
    image = 0 if rows else settings.get(224, "input_size", "image_size")
    side = (math.isqrt(max(rows - 3, 1)) + 1) // 2 if rows else image // patch
    if not 0 < side <= LARGEST_SIDE or (rows and (2 * side - 1) ** 2 + 3 != rows):
        raise UserError(f"a table of {rows} relative positions, or an image of {image} pixels, has no grid of patches.")
    return patch, side


def normalisation(channels: int, imagenet: bool) -> dict:
    """Return mean and standard deviation of pixels, in colour ``imagenet``'s or 0.5 (3.6, 6.3)."""
    return IMAGENET if channels == 3 and imagenet else {"mean": [0.5] * channels, "std": [0.5] * channels}


def mask_block(side: int, settings: Settings) -> dict:
    """Return the block ``mask``: 120 of 196 patches unless the file says another number (3.4)."""
    masked = settings.get(120 * side**2 // 196, "num_mask_patches")
    share = masked / side**2
    while int(share * side**2) < masked:  # the count has to survive the division
        share = math.nextafter(share, 1)
    return {
        "kind": "rectangles",
        "share": share,
        "smallest": settings.get(min(16, masked), "min_mask_patches_per_block"),
    }


def bias_of(tensors: Tensors) -> str:
    """Return whether blocks share their table of relative positions."""
    table = tensors.get(f"rel_pos_bias.{TABLE}")
    return "none" if table is None else ("shared" if table.ndim == 2 else "block")


def trunk_block(tensors: Tensors, settings: Settings, head: str | None, epsilon: float) -> dict:
    """Return the block ``trunk`` (3.3, 3.7, 6.3)."""
    expand = tensors["blocks.0.mlp.fc1.weight"]
    table, large = tensors.get(f"rel_pos_bias.{TABLE}"), expand.shape[1] >= LARGE
    drop_path = (0.2 if large else 0.25) if head is None else (0.25 if large else 0.2)
    attention = (0.15 if large else 0.05) if head is None else 0.0
    scale = settings.get(1e-5 if large else 1e-4, "layer_scale_init_value") if "blocks.0.gamma_1" in tensors else None
    return {
        "width": expand.shape[1],
        "depth": count(tensors, "blocks.#.mlp.fc1.weight"),
        "heads": table.shape[-1] if table is not None else heads_of(expand.shape[1], settings, "num_heads"),
        "feedforward": expand.shape[0],
        "norm": "pre",
        "input_norm": False,
        "epsilon": epsilon,
        "dropout": settings.get(0.0, "drop"),
        "attention_dropout": settings.get(attention, "attention_dropout", "attn_drop_rate"),
        "activation_dropout": 0.0,
        "layer_drop": 0.0,
        "drop_path": settings.get(drop_path, "drop_path"),
        "layer_scale": scale,
        "key_bias": "blocks.0.attn.q_bias" not in tensors,
        "final_norm": head != "mean" and "norm.weight" in tensors,
        "init": "truncated",
        "init_std": 0.02,
    }


def block(tensors: Tensors, settings: Settings, head: str | None, epsilon: float) -> dict:
    """Return version, ``table`` and ``model`` (3.1 to 3.7)."""
    patch, side = sizes(tensors, settings)
    channels = tensors["patch_embed.proj.weight"].shape[1]
    augment = {"area": 0.08, "aspect": 0.75, "turn": 0.0, "flip": True, "jitter": 0.4}
    imagenet = settings.get(head is None, "imagenet_default_mean_and_std")
    return {
        "version": 1,
        "table": {"size": side * patch, "channels": channels},
        "model": {
            "augment": augment | normalisation(channels, imagenet),
            "mask": mask_block(side, settings),
            "local": {
                "patch": patch,
                "positions": 0.0,
                "bias": bias_of(tensors),
                "mask_token": "mask_token" in tensors,
                "class_std": None,
            },
            "trunk": trunk_block(tensors, settings, head, epsilon),
        },
    }


BEIT = Layout(
    modality="vision",
    version=1,
    sign="patch_embed.proj.weight",
    names=NAMES,
    heads=HEADS,
    predicts=({"head.*": "lm_head.*"},),
    inside=("patch_embed.", "cls_token", "pos_embed", "blocks.", "rel_pos_bias.", "norm."),
    harmless=r"(.*\.)?relative_position_index|lm_head\..*",
    teacher="",
    clean=clean,
    block=partial(block, epsilon=1e-6),
)
PORT = dataclasses.replace(BEIT, heads={}, teacher="encoder.", clean=clean_port, block=partial(block, epsilon=1e-5))
