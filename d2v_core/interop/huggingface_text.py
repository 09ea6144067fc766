"""Hugging Face's Data2VecText classes: what their configuration, weights and files are called (reference 8.2)."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from d2v_core.interop.names import Names, class_names
from d2v_core.interop.trunks import POST_NORM

TYPE, PREFIX = "data2vec-text", "data2vec_text."
CLASSIFIER = "Data2VecTextForSequenceClassification"
ARCHITECTURES = {None: "Data2VecTextModel", "first": CLASSIFIER, "score": CLASSIFIER}
READ_TOO = ("Data2VecTextForMaskedLM", "Data2VecTextForCausalLM")  # their heads are not trained by data2vec
CLASSIFIES = ("first", "score")
IGNORED = ("pooler.", "lm_head.", "embeddings.position_ids", "embeddings.token_type_ids")
PAD = 1
TOKEN_TYPES, POSITIONS = "embeddings.token_type_embeddings.weight", "embeddings.position_embeddings.weight"
HEADS = {kind: {"head.0.*": "classifier.dense.*", "head.2.*": "classifier.out_proj.*"} for kind in CLASSIFIES}
NAMES = {
    "local.tokens.weight": "embeddings.word_embeddings.weight",
    "local.positions.weight": POSITIONS,
    "local.norm.*": "embeddings.LayerNorm.*",
    "trunk.blocks.#.attention.qkv.*": "encoder.layer.#.attention.self.{query,key,value}.*",
    "trunk.blocks.#.attention.output.*": "encoder.layer.#.attention.output.dense.*",
    "trunk.blocks.#.attention_norm.*": "encoder.layer.#.attention.output.LayerNorm.*",
    "trunk.blocks.#.feedforward.expand.*": "encoder.layer.#.intermediate.dense.*",
    "trunk.blocks.#.feedforward.contract.*": "encoder.layer.#.output.dense.*",
    "trunk.blocks.#.feedforward_norm.*": "encoder.layer.#.output.LayerNorm.*",
}
FIXED = {  # what our encoder does one way only
    "hidden_act": "gelu",
    "pad_token_id": PAD,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "is_decoder": False,
    "add_cross_attention": False,
}
DEFAULTS = FIXED | {  # of Data2VecTextConfig, for files that leave them out
    "vocab_size": 30522,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "max_position_embeddings": 512,
    "initializer_range": 0.02,
    "layer_norm_eps": 1e-12,
}
EXPRESSIBLE = {  # what Hugging Face's encoder does one way only
    "model.trunk.norm": "post",
    "model.trunk.input_norm": False,
    "model.trunk.final_norm": False,
    "model.trunk.layer_scale": None,
    "model.trunk.key_bias": True,
}


def read_block(theirs: Mapping, read: Callable[[str], Mapping]) -> dict:
    """Return the blocks ``table`` and ``model`` of their configuration; what it does not say is as published (4.4)."""
    return {
        "table": {"vocabulary": theirs["vocab_size"], "tokens": theirs["max_position_embeddings"] - PAD - 1},
        "model": {
            "mask": {"kind": "tokens", "probability": 0.15, "length": 1, "random": 0.1, "keep": 0.1},
            "local": {
                "position_std": theirs["initializer_range"],
                "train_positions": True,
                "dropout": theirs["hidden_dropout_prob"],
            },
            "trunk": {
                "width": theirs["hidden_size"],
                "depth": theirs["num_hidden_layers"],
                "heads": theirs["num_attention_heads"],
                "feedforward": theirs["intermediate_size"],
                **POST_NORM,
                "input_norm": False,
                "epsilon": theirs["layer_norm_eps"],
                "dropout": theirs["hidden_dropout_prob"],
                "attention_dropout": theirs["attention_probs_dropout_prob"],
                "activation_dropout": 0.0,
                "layer_drop": 0.0,
                "init_std": theirs["initializer_range"],
            },
        },
    }


def write_config(config: Mapping, head: str | None) -> dict:
    """Return the values of Data2VecTextConfig for a run; dropout in the head is 0 like ours."""
    table, trunk = config["table"], config["model"]["trunk"]
    return FIXED | {
        "vocab_size": table["vocabulary"],
        "hidden_size": trunk["width"],
        "num_hidden_layers": trunk["depth"],
        "num_attention_heads": trunk["heads"],
        "intermediate_size": trunk["feedforward"],
        "hidden_dropout_prob": trunk["dropout"],
        "attention_probs_dropout_prob": trunk["attention_dropout"],
        "classifier_dropout": 0.0,
        "max_position_embeddings": table["tokens"] + PAD + 1,
        "type_vocab_size": 1,
        "initializer_range": trunk["init_std"],
        "layer_norm_eps": trunk["epsilon"],
    }


def names(config: Mapping) -> Names:
    """Return the table of names for an encoder of ``config``."""
    return NAMES


def before_reading(weights: dict[str, Tensor], theirs: Mapping) -> dict[str, Tensor]:
    """Return their weights with the embedding of token type 0, which every token gets, added to the positions.

    It is zero in published models, and then positions keep their bits; other token types have no place here.
    """
    kinds, positions = weights.pop(TOKEN_TYPES, None), weights.get(POSITIONS)
    if kinds is None or positions is None or not kinds[0].any():
        return weights
    return weights | {POSITIONS: positions.float() + kinds[0].float()}


def after_writing(weights: dict[str, Tensor], head: str | None) -> dict[str, Tensor]:
    """Return our weights with what Hugging Face's classes have beside them: a zero token type and a pooler.

    Nothing in data2vec trains a pooler, so it passes the first token through (and a tanh) unchanged.
    """
    width = weights[POSITIONS].shape[1]
    added = {TOKEN_TYPES: torch.zeros(1, width)}
    if head is None:
        added |= {"pooler.dense.weight": torch.eye(width), "pooler.dense.bias": torch.zeros(width)}
    return weights | added


def symbols(theirs: Mapping, read: Callable[[str], Mapping]) -> list[str]:
    """Return the names of the classes by number."""
    return class_names(theirs)


def write_files(config: Mapping, head: str | None) -> dict[str, Mapping]:
    """Return the JSON file that says how Hugging Face uses ``tokenizer.json``, by name."""
    return {
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": "<s>",
            "eos_token": "</s>",
            "cls_token": "<s>",
            "sep_token": "</s>",
            "pad_token": "<pad>",
            "unk_token": "<unk>",
            "mask_token": "<mask>",
            "model_max_length": config["table"]["tokens"],
            "model_input_names": ["input_ids", "attention_mask"],
            "clean_up_tokenization_spaces": False,
        }
    }
