"""Where a tensor of the public reference implementation lives in ours, for data2vec 1.0 and 2.0 (reference 8.1 - 8.4).

Names on our side start with ``local.`` or ``trunk.`` (parts of an Encoder) or ``head.`` (what predicts).
"""

import re
from dataclasses import dataclass

import torch
from torch import Tensor

BLOCK = {
    "self_attn.out_proj": "attention.output",
    "self_attn_layer_norm": "attention_norm",
    "final_layer_norm": "feedforward_norm",
    "fc1": "feedforward.expand",
    "fc2": "feedforward.contract",
    "attn.qkv": "attention.qkv",
    "attn.proj": "attention.output",
    "attn.q_bias": "attention.query_bias",
    "attn.v_bias": "attention.value_bias",
    "mlp.0": "feedforward.expand",
    "mlp.2": "feedforward.contract",
    "mlp.fc1": "feedforward.expand",
    "mlp.fc2": "feedforward.contract",
    "norm1": "attention_norm",
    "norm2": "feedforward_norm",
    "gamma_1": "attention_scale",
    "gamma_2": "feedforward_scale",
}
V1 = {
    r"feature_extractor\.conv_layers\.(\d+)\.0": r"local.extractor.\1",
    r"feature_extractor\.conv_layers\.(\d+)\.2\.1": r"local.extractor.\1.norm",
    r"layer_norm": "local.feature_norm",
    r"post_extract_proj": "local.projection",
    r"mask_emb": "local.mask_token",
    r"encoder\.pos_conv\.(\d+)\.0": r"local.positions.\1.convolution",
    r"encoder\.layer_norm": "trunk.input_norm",
    r"final_proj": "head",
    r"encoder\.sentence_encoder\.embed_tokens": "local.tokens",
    r"encoder\.sentence_encoder\.embed_positions": "local.positions",
    r"encoder\.sentence_encoder\.layernorm_embedding": "local.norm",
    r"encoder\.regression_head\.(\d+)": r"head.\1",
    r"patch_embed\.conv": "local.patches",
    r"cls_emb": "local.class_token",
    r"encoder\.rel_pos_bias\.relative_position_bias_table": "local.relative_bias",
    r"encoder\.rel_pos_bias\.relative_position_index": "local.relative_index",
    r"encoder\.norm": "trunk.final_norm",
}
V2 = {
    r"local_encoder\.conv_layers\.(\d+)\.0": r"local.extractor.\1",
    r"local_encoder\.conv_layers\.(\d+)\.2\.1": r"local.extractor.\1.norm",
    r"project_features\.1": "local.feature_norm",
    r"project_features\.2": "local.projection",
    r"alibi_scale": "local.alibi_scale",
    r"context_encoder\.norm": "trunk.input_norm",
    r"local_encoder\.proj": "local.patches",
    r"fixed_positional_encoder\.positions": "local.positions",
    r"extra_tokens": "local.class_token",
    r"local_encoder\.embed_tokens": "local.tokens",
    r"local_encoder\.embed_positions": "local.positions",
    r"local_encoder\.layernorm_embedding": "local.norm",
    r"decoder\.blocks\.(\d+)\.0": r"head.blocks.\1.convolution",
    r"decoder\.proj": "head.projection.0",
    r"decoder\.proj\.(\d+)": r"head.projection.\1",
}
LEAF = re.compile(r"(.+?)(\.weight|\.bias)?")
V1_BLOCK = re.compile(r"encoder\.(?:sentence_encoder\.)?(?:layers|blocks)\.(\d+)\.(.+)")
V2_BLOCK = re.compile(r"(modality_encoders\.[A-Z]+\.context_encoder\.)?blocks\.(\d+)\.(.+)")
V2_PART = re.compile(r"modality_encoders\.[A-Z]+\.(.+)")


@dataclass(frozen=True)
class Place:
    """Our name, and which ``third`` of that tensor's rows is meant where query, key and value are joined."""

    name: str
    third: int | None = None

    def of(self, tensors: dict[str, Tensor]) -> Tensor | None:
        """Return the tensor at this place, or None where ``tensors`` holds none."""
        tensor = tensors.get(self.name)
        return tensor if tensor is None or self.third is None else tensor.chunk(3)[self.third]


def place(reference: str, version: int, prenet: int = 0) -> Place:
    """Return where the reference's tensor belongs; raise KeyError for a name that has no place.

    ``prenet`` counts the blocks of version 2 before its main ones, which the reference numbers from 0 again.
    """
    stem, leaf = LEAF.fullmatch(reference).groups(default="")
    if version == 1:
        if match := V1_BLOCK.fullmatch(stem):
            return block(int(match[1]), match[2], leaf)
        return Place(rename(stem, V1) + leaf)
    if match := V2_BLOCK.fullmatch(stem):
        return block(int(match[2]) + (0 if match[1] else prenet), match[3], leaf)
    if match := re.fullmatch(r".+\.relative_positional_encoder\.(\d+)\.0", stem):
        return Place(f"local.positions.{int(match[1]) - 1}.convolution{leaf}")
    return Place(rename(V2_PART.fullmatch(stem)[1], V2) + leaf)


def block(number: int, part: str, leaf: str) -> Place:
    """Return the place of a part of a transformer block."""
    if match := re.fullmatch(r"self_attn\.([qkv])_proj", part):
        return Place(f"trunk.blocks.{number}.attention.qkv{leaf}", "qkv".index(match[1]))
    return Place(f"trunk.blocks.{number}.{BLOCK[part]}{leaf}")


def rename(stem: str, rules: dict[str, str]) -> str:
    """Return our name by the one rule that matches all of ``stem``; raise KeyError without one."""
    for pattern, ours in rules.items():
        if match := re.fullmatch(pattern, stem):
            return match.expand(ours)
    raise KeyError(stem)


def gather(reference: dict[str, Tensor], version: int, prenet: int = 0) -> dict[str, Tensor]:
    """Return reference tensors by our names, with query, key and value joined."""
    parts: dict[str, dict[int, Tensor]] = {}
    for name, tensor in reference.items():
        where = place(name, version, prenet)
        parts.setdefault(where.name, {})[where.third or 0] = tensor
    return {name: torch.cat([found[third] for third in sorted(found)]) for name, found in parts.items()}
