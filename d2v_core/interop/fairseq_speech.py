"""fairseq's data2vec for speech: names of its tensors, and a configuration from their sizes (reference 2, 6.1, 8.1)."""

from torch import Tensor

from d2v_core.errors import UserError
from d2v_core.interop.layout import Layout, Tensors, count, heads_of, strip
from d2v_core.interop.settings import Settings, convolutions
from d2v_core.interop.trunks import POST_NORM

LETTERS = ["<s>", "<pad>", "</s>", "<unk>", "|", *"ETAONIHSRDLUMWCFGYPBVK'XJQZ"]
STRIDES = [5, 2, 2, 2, 2, 2, 2]
NAMES = {
    "local.extractor.#.weight": "feature_extractor.conv_layers.#.0.weight",
    "local.extractor.#.norm.*": "feature_extractor.conv_layers.#.2.1.*",
    "local.feature_norm.*": "layer_norm.*",
    "local.projection.*": "post_extract_proj.*",
    "local.mask_token": "mask_emb",
    "local.positions.#.convolution.*": "encoder.pos_conv.#.0.*",
    "trunk.input_norm.*": "encoder.layer_norm.*",
    "trunk.blocks.#.attention.qkv.*": "encoder.layers.#.self_attn.{q_proj,k_proj,v_proj}.*",
    "trunk.blocks.#.attention.output.*": "encoder.layers.#.self_attn.out_proj.*",
    "trunk.blocks.#.attention_norm.*": "encoder.layers.#.self_attn_layer_norm.*",
    "trunk.blocks.#.feedforward.expand.*": "encoder.layers.#.fc1.*",
    "trunk.blocks.#.feedforward.contract.*": "encoder.layers.#.fc2.*",
    "trunk.blocks.#.feedforward_norm.*": "encoder.layers.#.final_layer_norm.*",
}


def clean(tensors: Tensors) -> dict[str, Tensor]:
    """Return the tensors of a fine-tuned model as those of a pretrained one are called, beside its head."""
    return strip(tensors, "w2v_encoder.w2v_model.")


def local_block(tensors: Tensors, settings: Settings, convolution: str, position: str) -> dict:
    """Return the block ``local``; ``convolution`` and ``position`` are the names of the layers' weights (also 5.2)."""
    kernels = [tensors[convolution.replace("#", str(i))] for i in range(count(tensors, convolution))]
    positions = [tensors[position.replace("#", str(i))] for i in range(count(tensors, position))]
    width, grouped, kernel = positions[0].shape if positions else (1, 1, 1)
    return {
        "channels": len(kernels[0]),
        "kernels": [weight.shape[2] for weight in kernels],
        "strides": strides([weight.shape[2] for weight in kernels], settings),
        "taps": "free",
        "position_layers": len(positions),
        "position_kernel": kernel,
        "position_groups": width // grouped,
        "mask_token": "mask_emb" in tensors,
        "alibi": "alibi_scale" in tensors,
    }


def strides(kernels: list[int], settings: Settings) -> list[int]:
    """Return the stride of every convolution, which no tensor tells; raise UserError when nothing else does either."""
    said = convolutions(settings.find("conv_feature_layers", "modalities.audio.feature_encoder_spec"))
    if [kernel for _, kernel, _ in said] == kernels:
        return [stride for _, _, stride in said]
    if len(kernels) != len(STRIDES):
        raise UserError(f"the file does not say the strides of its {len(kernels)} convolutions; give one with its cfg.")
    settings.assumed["strides"] = STRIDES
    return STRIDES


def table_block(settings: Settings) -> dict:
    """Return the block ``table``: durations are those of params.yaml, for they were never a property of a model."""
    if settings.find("normalize") is False:
        settings.assumed["normalize"] = True
    return {"sample_rate": settings.get(16000, "sample_rate"), "min_seconds": 0.2, "max_seconds": 30.0}


def crop_block(settings: Settings, rate: int) -> dict:
    """Return the block ``crop``, in seconds (2.1)."""
    return {
        "min_seconds": settings.get(2 * rate, "min_sample_size") / rate,
        "max_seconds": settings.get(20 * rate, "max_sample_size") / rate,
    }


def block(tensors: Tensors, settings: Settings, head: str | None) -> dict:
    """Return version, ``table`` and ``model`` (2.2 to 2.7)."""
    if settings.find("layer_norm_first") is True:
        raise UserError("the file has layer_norm_first: true; only encoders that normalise last can be read.")
    convolution, position = NAMES["local.extractor.#.weight"], "encoder.pos_conv.#.0.weight"
    expand = tensors["encoder.layers.0.fc1.weight"]
    table = table_block(settings)
    return {
        "version": 1,
        "table": table,
        "model": {
            "crop": crop_block(settings, table["sample_rate"]),
            "mask": {
                "kind": "spans",
                "probability": settings.get(0.65, "mask_prob"),
                "length": settings.get(10, "mask_length"),
            },
            "local": local_block(tensors, settings, convolution, position),
            "trunk": {
                "width": expand.shape[1],
                "depth": count(tensors, "encoder.layers.#.fc1.weight"),
                "heads": heads_of(expand.shape[1], settings, "encoder_attention_heads"),
                "feedforward": expand.shape[0],
                **POST_NORM,
                "input_norm": True,
                "epsilon": 1e-5,
                "dropout": settings.get(0.1, "dropout"),
                "attention_dropout": settings.get(0.1, "attention_dropout"),
                "activation_dropout": settings.get(0.0, "activation_dropout"),
                "layer_drop": settings.get(0.05, "layerdrop", "encoder_layerdrop"),
                "init_std": 0.02,
            },
        },
    }


LAYOUT = Layout(
    modality="speech",
    version=1,
    sign="feature_extractor.conv_layers.0.0.weight",
    names=NAMES,
    heads={"ctc": {"head.*": "w2v_encoder.proj.*"}},
    predicts=({"head.*": "final_proj.*"}, {"head.*": "final_proj.0.*"}),
    inside=("feature_extractor.", "layer_norm.", "post_extract_proj.", "encoder."),
    harmless=r"(final_proj|quantizer|project_q)\..*",
    teacher="encoder.",
    clean=clean,
    block=block,
)
