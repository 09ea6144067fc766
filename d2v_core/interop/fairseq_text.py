"""fairseq's data2vec for text: names of its tensors, and a configuration from their sizes (reference 4, 6.4, 8.2)."""

import re

from torch import Tensor

from d2v_core.errors import UserError
from d2v_core.interop.layout import Layout, Tensors, count, heads_of
from d2v_core.interop.settings import Settings
from d2v_core.interop.trunks import POST_NORM

INSIDE = "encoder.sentence_encoder."
RENAMED = (  # what old files call it, and newer ones
    (r"^decoder\.", "encoder."),
    (r"\.emb_layer_norm\.", ".layernorm_embedding."),
    (r"^encoder\.lm_head\.(\d+)\.", r"encoder.regression_head.\1."),
)
NAMES = {
    "local.tokens.*": f"{INSIDE}embed_tokens.*",
    "local.positions.*": f"{INSIDE}embed_positions.*",
    "local.norm.*": f"{INSIDE}layernorm_embedding.*",
    "trunk.blocks.#.attention.qkv.*": f"{INSIDE}layers.#.self_attn.{{q_proj,k_proj,v_proj}}.*",
    "trunk.blocks.#.attention.output.*": f"{INSIDE}layers.#.self_attn.out_proj.*",
    "trunk.blocks.#.attention_norm.*": f"{INSIDE}layers.#.self_attn_layer_norm.*",
    "trunk.blocks.#.feedforward.expand.*": f"{INSIDE}layers.#.fc1.*",
    "trunk.blocks.#.feedforward.contract.*": f"{INSIDE}layers.#.fc2.*",
    "trunk.blocks.#.feedforward_norm.*": f"{INSIDE}layers.#.final_layer_norm.*",
}
CLASSIFIES = {"head.0.*": "classification_heads.dense.*", "head.2.*": "classification_heads.out_proj.*"}


def clean(tensors: Tensors) -> dict[str, Tensor]:
    """Return the tensors by the names of newer files, those of the first classification head without its own name."""
    renamed = {}
    for old, tensor in first_head(tensors).items():
        name = old
        for pattern, replacement in RENAMED:
            name = re.sub(pattern, replacement, name)
        renamed[name] = tensor
    return renamed


def first_head(tensors: Tensors) -> dict[str, Tensor]:
    """Return the tensors with the name of the first classification head taken out of its tensors' names."""
    heads = sorted({name.split(".")[1] for name in tensors if name.startswith("classification_heads.")})
    first = f"classification_heads.{heads[0]}." if heads else None
    return {
        "classification_heads." + name.removeprefix(first) if first and name.startswith(first) else name: tensor
        for name, tensor in tensors.items()
    }


def table_block(vocabulary: Tensor, positions: Tensor) -> dict:
    """Return the block ``table``: the first two rows of the position table belong to no token (4.3)."""
    return {"vocabulary": len(vocabulary), "tokens": len(positions) - 2}


def block(tensors: Tensors, settings: Settings, head: str | None) -> dict:
    """Return version, ``table`` and ``model`` (4.2 to 4.4)."""
    if settings.find("transformer.encoder.normalize_before", "encoder_normalize_before") is True:
        raise UserError("the file has normalize_before: true; only encoders that normalise last can be read.")
    expand = tensors[f"{INSIDE}layers.0.fc1.weight"]
    names = ("transformer.encoder.attention_heads", "encoder_attention_heads")
    dropout = settings.get(0.1, "transformer.dropout", "dropout")
    return {
        "version": 1,
        "table": table_block(tensors[f"{INSIDE}embed_tokens.weight"], tensors[f"{INSIDE}embed_positions.weight"]),
        "model": {
            "mask": {
                "kind": "tokens",
                "probability": settings.get(0.35, "mask_prob"),
                "length": settings.get(4, "mask_multiple_length"),
                "random": settings.get(0.0, "random_token_prob"),
                "keep": settings.get(0.0, "leave_unmasked_prob"),
            },
            "local": {"position_std": 0.02, "train_positions": True, "dropout": dropout},
            "trunk": {
                "width": expand.shape[1],
                "depth": count(tensors, f"{INSIDE}layers.#.fc1.weight"),
                "heads": heads_of(expand.shape[1], settings, *names),
                "feedforward": expand.shape[0],
                **POST_NORM,
                "input_norm": False,
                "epsilon": 1e-5,
                "dropout": dropout,
                "attention_dropout": settings.get(0.1, "transformer.attention_dropout", "attention_dropout"),
                "activation_dropout": settings.get(0.0, "transformer.activation_dropout", "activation_dropout"),
                "layer_drop": settings.get(0.0, "transformer.encoder.layerdrop", "encoder_layerdrop"),
                "init_std": 0.02,
            },
        },
    }


LAYOUT = Layout(
    modality="text",
    version=1,
    sign=f"{INSIDE}embed_tokens.weight",
    names=NAMES,
    heads={"first": CLASSIFIES},
    predicts=({"head.#.*": "encoder.regression_head.#.*"},),
    inside=(INSIDE,),
    harmless=r"encoder\.(version|sentence_encoder\.version|lm_head\..*|regression_head\..*)",
    teacher=INSIDE,
    clean=clean,
    block=block,
)
