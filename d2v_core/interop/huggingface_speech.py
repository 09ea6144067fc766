"""Hugging Face's Data2VecAudio classes: what their configuration, weights and files are called (reference 8.1)."""

from collections.abc import Callable, Mapping

from torch import Tensor

from d2v_core.config import require
from d2v_core.interop.names import Names
from d2v_core.interop.trunks import POST_NORM

TYPE, PREFIX = "data2vec-audio", "data2vec_audio."
PREPROCESSOR = "preprocessor_config.json"
ARCHITECTURES = {None: "Data2VecAudioModel", "ctc": "Data2VecAudioForCTC"}
READ_TOO = ()
CLASSIFIES = ()
IGNORED = ("masked_spec_embed",)
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]  # the first is the blank of CTC, which Hugging Face calls <pad>
HEADS = {"ctc": {"head.*": "lm_head.*"}}
NAMES = {
    "local.extractor.#.weight": "feature_extractor.conv_layers.#.conv.weight",
    "local.extractor.#.norm.*": "feature_extractor.conv_layers.#.layer_norm.*",
    "local.feature_norm.*": "feature_projection.layer_norm.*",
    "local.projection.*": "feature_projection.projection.*",
    "local.mask_token": "masked_spec_embed",
    "local.positions.#.convolution.*": "encoder.pos_conv_embed.layers.#.conv.*",
    "trunk.input_norm.*": "encoder.layer_norm.*",
    "trunk.blocks.#.attention.qkv.*": "encoder.layers.#.attention.{q_proj,k_proj,v_proj}.*",
    "trunk.blocks.#.attention.output.*": "encoder.layers.#.attention.out_proj.*",
    "trunk.blocks.#.attention_norm.*": "encoder.layers.#.layer_norm.*",
    "trunk.blocks.#.feedforward.expand.*": "encoder.layers.#.feed_forward.intermediate_dense.*",
    "trunk.blocks.#.feedforward.contract.*": "encoder.layers.#.feed_forward.output_dense.*",
    "trunk.blocks.#.feedforward_norm.*": "encoder.layers.#.final_layer_norm.*",
}
FIXED = {  # what our encoder does one way only
    "hidden_act": "gelu",
    "feat_extract_activation": "gelu",
    "conv_bias": False,
    "layer_norm_eps": 1e-5,
    "pad_token_id": 0,
    "add_adapter": False,
}
DEFAULTS = FIXED | {  # of Data2VecAudioConfig, for files that leave them out
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_dropout": 0.1,
    "activation_dropout": 0.1,
    "attention_dropout": 0.1,
    "layerdrop": 0.1,
    "initializer_range": 0.02,
    "conv_dim": [512] * 7,
    "conv_stride": [5, 2, 2, 2, 2, 2, 2],
    "conv_kernel": [10, 3, 3, 3, 3, 2, 2],
    "num_conv_pos_embedding_groups": 16,
    "conv_pos_kernel_size": 19,
    "num_conv_pos_embeddings": 5,
    "mask_time_prob": 0.05,
    "mask_feature_prob": 0.0,
}
EXPRESSIBLE = {  # what Hugging Face's encoder does one way only
    "model.local.alibi": False,
    "model.trunk.norm": "post",
    "model.trunk.input_norm": True,
    "model.trunk.final_norm": False,
    "model.trunk.epsilon": 1e-5,
    "model.trunk.layer_scale": None,
    "model.trunk.key_bias": True,
}


def read_block(theirs: Mapping, read: Callable[[str], Mapping]) -> dict:
    """Return the blocks ``table`` and ``model`` of their configuration; what it does not say is as published (2.7).

    ``read`` gives a JSON file of their folder, empty when it is not there. Raises ValueError for what we do not have.
    """
    preprocessor = read(PREPROCESSOR)
    require(len(set(theirs["conv_dim"])) == 1, f"conv_dim {theirs['conv_dim']} is not the same in all convolutions")
    require(preprocessor.get("do_normalize", True), "do_normalize is false, but our waveforms are always normalised")
    return {
        "table": {
            "sample_rate": preprocessor.get("sampling_rate", 16000),
            "min_seconds": 0.2,
            "max_seconds": 30.0,
        },
        "model": {
            "crop": {"min_seconds": 2.0, "max_seconds": 20.0},
            "mask": {"kind": "spans", "probability": 0.65, "length": 10},
            "local": {
                "channels": theirs["conv_dim"][0],
                "kernels": theirs["conv_kernel"],
                "strides": theirs["conv_stride"],
                "taps": "free",
                "position_layers": theirs["num_conv_pos_embeddings"],
                "position_kernel": theirs["conv_pos_kernel_size"],
                "position_groups": theirs["num_conv_pos_embedding_groups"],
                "mask_token": theirs["mask_time_prob"] > 0 or theirs["mask_feature_prob"] > 0,
                "alibi": False,
            },
            "trunk": {
                "width": theirs["hidden_size"],
                "depth": theirs["num_hidden_layers"],
                "heads": theirs["num_attention_heads"],
                "feedforward": theirs["intermediate_size"],
                **POST_NORM,
                "input_norm": True,
                "epsilon": theirs["layer_norm_eps"],
                "dropout": theirs["hidden_dropout"],
                "attention_dropout": theirs["attention_dropout"],
                "activation_dropout": theirs["activation_dropout"],
                "layer_drop": theirs["layerdrop"],
                "init_std": theirs["initializer_range"],
            },
        },
    }


def write_config(config: Mapping, head: str | None) -> dict:
    """Return the values of Data2VecAudioConfig for a run; its dropouts at the head are 0 like ours."""
    local, trunk = config["model"]["local"], config["model"]["trunk"]
    return FIXED | {
        "hidden_size": trunk["width"],
        "num_hidden_layers": trunk["depth"],
        "num_attention_heads": trunk["heads"],
        "intermediate_size": trunk["feedforward"],
        "hidden_dropout": trunk["dropout"],
        "activation_dropout": trunk["activation_dropout"],
        "attention_dropout": trunk["attention_dropout"],
        "layerdrop": trunk["layer_drop"],
        "feat_proj_dropout": 0.0,
        "final_dropout": 0.0,
        "initializer_range": trunk["init_std"],
        "conv_dim": [local["channels"]] * len(local["kernels"]),
        "conv_stride": list(local["strides"]),
        "conv_kernel": list(local["kernels"]),
        "num_conv_pos_embedding_groups": local["position_groups"],
        "conv_pos_kernel_size": local["position_kernel"],
        "num_conv_pos_embeddings": local["position_layers"],
        "mask_time_prob": 0.05 if local["mask_token"] else 0.0,
        "mask_time_length": 10,
        "mask_feature_prob": 0.0,
        "ctc_loss_reduction": "sum",
        "ctc_zero_infinity": True,
        "vocab_size": len(config["symbols"]) if head else 32,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }


def names(config: Mapping) -> Names:
    """Return the table of names for an encoder of ``config``."""
    return NAMES


def before_reading(weights: dict[str, Tensor], theirs: Mapping) -> dict[str, Tensor]:
    """Return their weights as they are."""
    return weights


def after_writing(weights: dict[str, Tensor], head: str | None) -> dict[str, Tensor]:
    """Return their weights as they are."""
    return weights


def symbols(theirs: Mapping, read: Callable[[str], Mapping]) -> list[str]:
    """Return the letters by number, with the special ones by our names; raise ValueError when they are not there."""
    vocabulary = read("vocab.json")
    require(bool(vocabulary), "its letters are unknown; put the vocab.json of its tokenizer beside it")
    letters = sorted(vocabulary, key=vocabulary.__getitem__)
    return [*SPECIAL[:2], *letters[2:]] if letters[:2] == ["<pad>", "<s>"] else letters


def write_files(config: Mapping, head: str | None) -> dict[str, Mapping]:
    """Return the JSON files that say how a waveform becomes input and numbers become letters, by name.

    Hugging Face adds 1e-7 to the variance of samples in [-1, 1], where our 1e-5 is for 16-bit integers: their inputs
    are smaller by 5e-6 at a deviation of 0.1 and by 5e-4 at one of 0.01. Raises ValueError for letters
    that are not numbered like ours.
    """
    files: dict[str, Mapping] = {
        PREPROCESSOR: {
            "feature_extractor_type": "Wav2Vec2FeatureExtractor",
            "feature_size": 1,
            "sampling_rate": config["table"]["sample_rate"],
            "padding_side": "right",
            "padding_value": 0.0,
            "do_normalize": True,
            "return_attention_mask": True,
        }
    }
    if head:
        first = list(config["symbols"][: len(SPECIAL)])
        require(first == SPECIAL, f"its symbols start with {first} instead of {SPECIAL}")
        letters = ["<pad>", "<s>", *config["symbols"][2:]]
        files["vocab.json"] = {letter: number for number, letter in enumerate(letters)}
        files["tokenizer_config.json"] = {
            "tokenizer_class": "Wav2Vec2CTCTokenizer",
            "pad_token": "<pad>",
            "bos_token": "<s>",
            "eos_token": "</s>",
            "unk_token": "<unk>",
            "word_delimiter_token": "|",
            "do_lower_case": False,
        }
    return files
