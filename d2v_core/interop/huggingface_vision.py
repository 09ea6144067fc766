"""Hugging Face's Data2VecVision classes: what their configuration, weights and files are called (reference 8.3).

Their norm of pooled patches has the epsilon of all norms, ours 1e-6 as published (6.3): where a folder says 1e-12, as
released ones do, logits differ by about 1e-6 of the inverse variance of what is pooled.
"""

from collections.abc import Callable, Mapping

from torch import Tensor

from d2v_core.config import require
from d2v_core.interop.names import Names, class_names

TYPE, PREFIX = "data2vec-vision", "data2vec_vision."
PREPROCESSOR = "preprocessor_config.json"
BICUBIC = 3  # Pillow's number
ARCHITECTURES = {
    None: "Data2VecVisionModel",
    "mean": "Data2VecVisionForImageClassification",
    "class": "Data2VecVisionForImageClassification",
}
READ_TOO = ()
CLASSIFIES = ("mean", "class")
IGNORED = ("embeddings.mask_token", "layernorm.", "pooler.", "encoder.relative_position_bias.relative_position_index")
HEADS = {
    "mean": {"head.0.*": "pooler.layernorm.*", "head.1.*": "classifier.*"},
    "class": {"head.*": "classifier.*"},
}
TABLE = "relative_position_bias.relative_position_bias_table"
NAMES = {
    "local.patches.*": "embeddings.patch_embeddings.projection.*",
    "local.class_token": "embeddings.cls_token",
    "local.mask_token": "embeddings.mask_token",
    "trunk.blocks.#.attention.qkv.weight": "encoder.layer.#.attention.attention.{query,key,value}.weight",
    "trunk.blocks.#.attention.query_bias": "encoder.layer.#.attention.attention.query.bias",
    "trunk.blocks.#.attention.value_bias": "encoder.layer.#.attention.attention.value.bias",
    "trunk.blocks.#.attention.output.*": "encoder.layer.#.attention.output.dense.*",
    "trunk.blocks.#.attention_norm.*": "encoder.layer.#.layernorm_before.*",
    "trunk.blocks.#.attention_scale": "encoder.layer.#.lambda_1",
    "trunk.blocks.#.feedforward.expand.*": "encoder.layer.#.intermediate.dense.*",
    "trunk.blocks.#.feedforward.contract.*": "encoder.layer.#.output.dense.*",
    "trunk.blocks.#.feedforward_norm.*": "encoder.layer.#.layernorm_after.*",
    "trunk.blocks.#.feedforward_scale": "encoder.layer.#.lambda_2",
    "trunk.final_norm.*": "layernorm.*",
}
FIXED = {"hidden_act": "gelu", "use_absolute_position_embeddings": False}  # what our encoder does one way only
DEFAULTS = FIXED | {  # of Data2VecVisionConfig, for files that leave them out
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "initializer_range": 0.02,
    "layer_norm_eps": 1e-12,
    "image_size": 224,
    "patch_size": 16,
    "num_channels": 3,
    "use_mask_token": False,
    "use_relative_position_bias": False,
    "use_shared_relative_position_bias": False,
    "layer_scale_init_value": 0.1,
    "drop_path_rate": 0.1,
    "use_mean_pooling": True,
}
EXPRESSIBLE = {  # what Hugging Face's encoder does one way only
    "model.local.positions": 0.0,
    "model.trunk.norm": "pre",
    "model.trunk.input_norm": False,
    "model.trunk.key_bias": False,
}


def read_block(theirs: Mapping, read: Callable[[str], Mapping]) -> dict:
    """Return the blocks ``table`` and ``model`` of their configuration; what it does not say is as published (3.7).

    ``read`` gives a JSON file of their folder, empty when it is not there. Raises ValueError for what we do not have.
    """
    shared, own = theirs["use_shared_relative_position_bias"], theirs["use_relative_position_bias"]
    require(not (shared and own), "use_shared_relative_position_bias and use_relative_position_bias are both true")
    scale = theirs["layer_scale_init_value"]
    return {
        "table": {"size": side(theirs, "image_size"), "channels": theirs["num_channels"]},
        "model": {
            "augment": {"area": 0.08, "aspect": 0.75, "turn": 0.0, "flip": True, "jitter": 0.4}
            | normalisation(read(PREPROCESSOR), theirs["num_channels"]),
            "mask": {"kind": "rectangles", "share": 120 / 196, "smallest": 16},
            "local": {
                "patch": side(theirs, "patch_size"),
                "positions": 0.0,
                "bias": "shared" if shared else "block" if own else "none",
                "mask_token": theirs["use_mask_token"],
                "class_std": None,
            },
            "trunk": {
                "width": theirs["hidden_size"],
                "depth": theirs["num_hidden_layers"],
                "heads": theirs["num_attention_heads"],
                "feedforward": theirs["intermediate_size"],
                "norm": "pre",
                "input_norm": False,
                "epsilon": theirs["layer_norm_eps"],
                "dropout": theirs["hidden_dropout_prob"],
                "attention_dropout": theirs["attention_probs_dropout_prob"],
                "activation_dropout": 0.0,
                "layer_drop": 0.0,
                "drop_path": theirs["drop_path_rate"],
                "layer_scale": scale if scale > 0 else None,
                "key_bias": False,
                "final_norm": not theirs["use_mean_pooling"],
                "init": "truncated",
                "init_std": theirs["initializer_range"],
            },
        },
    }


def side(theirs: Mapping, key: str) -> int:
    """Return the side of a square in pixels, which they may write as one number or two; raise ValueError."""
    value = theirs[key]
    sides = set(value) if isinstance(value, list) else {value}
    require(len(sides) == 1, f"{key} {value} is not square")
    return sides.pop()


def normalisation(preprocessor: Mapping, channels: int) -> dict:
    """Return mean and deviation per channel, of pixels in [0, 1]; without a file those of fine-tuning (6.3)."""
    used = preprocessor.get("do_normalize", True)
    mean, std = (preprocessor.get(key) or [0.5] * channels for key in ("image_mean", "image_std"))
    return {"mean": mean, "std": std} if used else {"mean": [0.0] * channels, "std": [1.0] * channels}


def write_config(config: Mapping, head: str | None) -> dict:
    """Return the values of Data2VecVisionConfig for a run; raise ValueError for a norm that it has no place for."""
    table, local, trunk = config["table"], config["model"]["local"], config["model"]["trunk"]
    fitting = head != "mean" or not trunk["final_norm"]
    require(fitting, "model.trunk.final_norm is true, but a norm before the mean over patches has no place there")
    require(head != "class" or trunk["final_norm"], "model.trunk.final_norm is false, but its head needs that norm")
    return FIXED | {
        "hidden_size": trunk["width"],
        "num_hidden_layers": trunk["depth"],
        "num_attention_heads": trunk["heads"],
        "intermediate_size": trunk["feedforward"],
        "hidden_dropout_prob": trunk["dropout"],
        "attention_probs_dropout_prob": trunk["attention_dropout"],
        "initializer_range": trunk["init_std"],
        "layer_norm_eps": trunk["epsilon"],
        "image_size": table["size"],
        "patch_size": local["patch"],
        "num_channels": table["channels"],
        "use_mask_token": local["mask_token"],
        "use_shared_relative_position_bias": local["bias"] == "shared",
        "use_relative_position_bias": local["bias"] == "block",
        "layer_scale_init_value": trunk["layer_scale"] or 0.0,
        "drop_path_rate": trunk["drop_path"],
        "use_mean_pooling": not trunk["final_norm"],
    }


def names(config: Mapping) -> Names:
    """Return the table of names for an encoder of ``config``: position biases are in one table, or one per block."""
    numbers = ",".join(map(str, range(config["model"]["trunk"]["depth"])))
    tables = {"shared": f"encoder.{TABLE}", "block": f"encoder.layer.[{numbers}].attention.attention.{TABLE}"}
    bias = config["model"]["local"]["bias"]
    return NAMES | ({"local.relative_bias": tables[bias]} if bias in tables else {})


def before_reading(weights: dict[str, Tensor], theirs: Mapping) -> dict[str, Tensor]:
    """Return the weights that their classes use: without pooling by the mean its norm is not there."""
    if theirs["use_mean_pooling"]:
        return weights
    return {key: tensor for key, tensor in weights.items() if not key.startswith("pooler.")}


def after_writing(weights: dict[str, Tensor], head: str | None) -> dict[str, Tensor]:
    """Return our weights as they are."""
    return weights


def symbols(theirs: Mapping, read: Callable[[str], Mapping]) -> list[str]:
    """Return the names of the classes by number."""
    return class_names(theirs)


def write_files(config: Mapping, head: str | None) -> dict[str, Mapping]:
    """Return the JSON file that says how an image becomes input, by name."""
    size, margin = config["table"]["size"], config["table"].get("margin", 0)
    augment = config["model"]["augment"]
    return {
        PREPROCESSOR: {
            "image_processor_type": "BeitImageProcessor",
            "do_resize": True,
            "size": {"shortest_edge": size + margin},
            "resample": BICUBIC,
            "do_center_crop": True,
            "crop_size": {"height": size, "width": size},
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": list(augment["mean"]),
            "image_std": list(augment["std"]),
            "do_reduce_labels": False,
        }
    }
