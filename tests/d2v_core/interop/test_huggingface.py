"""The numbers of the real classes, from their weights in our encoder and from our weights in their classes."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from d2v_core.errors import UserError
from d2v_core.interop import huggingface_v2
from d2v_core.interop.huggingface import FORMATS, check_expressible, form_for, read_folder, write_folder
from d2v_core.interop.names import class_names
from d2v_core.model.supervised import HeadConfig, Supervised, ctc_loss
from d2v_core.setup import make_setup
from tests.d2v_core.blocks import rows, small_block

GOLDEN = Path(__file__).parents[4] / "shared" / "golden" / "hf"
needs_golden = pytest.mark.skipif(not GOLDEN.is_dir(), reason="the golden numbers are not beside this checkout")
LETTERS = ["<s>", "<pad>", "</s>", "<unk>", "|", *"abcdefghijklmno"]
CLASSES = ["red", "green", "blue"]
HEADS = [("speech", None), ("speech", "ctc"), ("text", None), ("text", "first"), ("text", "score")]
HEADS += [("vision", None), ("vision", "mean"), ("vision", "class")]
FILES = ["hf_audio", "hf_text", "hf_vision", "hf_vision_perlayer_cls"]


@pytest.fixture
def transformers(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return pytest.importorskip("transformers", reason="the real classes come with the extra `dev`")


def golden_folder(name: str, folder: Path) -> tuple[Path, dict[str, torch.Tensor]]:
    """Write a golden model as the library saves it, and return what else was dumped."""
    dumped = load_file(GOLDEN / f"{name}.safetensors")
    config = json.loads((GOLDEN / f"{name}.json").read_text())["config"]
    weights = {key.removeprefix("weights/"): value for key, value in dumped.items() if key.startswith("weights/")}
    if name == "hf_audio":
        letters = ["<pad>", "<s>", *LETTERS[2:]]
        (folder / "vocab.json").write_text(json.dumps({letter: number for number, letter in enumerate(letters)}))
    else:
        classes = dumped["classification/logits"].shape[1]
        config["id2label"] = {str(number): f"class {number}" for number in range(classes)}
    (folder / "config.json").write_text(json.dumps(config))
    save_file(weights, folder / "model.safetensors")
    return folder, dumped


def model_of(config: dict, weights: dict[str, torch.Tensor]) -> Supervised:
    """Return our model of a run, in evaluation mode."""
    setup = make_setup(config["modality"], config, "run")
    head = HeadConfig(config["head"], freeze=0, smoothing=0.0)
    model = Supervised(setup.encoder(), head, setup.trunk.width, len(config["symbols"]))
    model.load_state_dict(weights)
    return model.eval()


def run(name: str, head: str | None, **local: object) -> tuple[dict, dict[str, torch.Tensor]]:
    """Return a small run whose weights are all random."""
    block = small_block(name)
    block["model"]["trunk"] |= {"width": 32, "heads": 4, "final_norm": name == "vision" and head != "mean"}
    block["model"]["local"] |= {"positions": 0.0} if name == "vision" else {}
    block["model"]["local"] |= local
    setup = make_setup(name, block, name)
    config = setup.describe()
    model = {"encoder": setup.encoder()}
    if head:
        config |= {"head": head, "symbols": {"ctc": LETTERS, "score": ["score"]}.get(head, CLASSES)}
        model["head"] = Supervised(model["encoder"], HeadConfig(head, 0, 0.0), 32, len(config["symbols"])).head
    torch.manual_seed(1)
    weights = {key: torch.randn(tensor.shape) * 0.3 for key, tensor in torch.nn.ModuleDict(model).state_dict().items()}
    return json.loads(json.dumps(config)), weights


def real_inputs(name: str, config: dict) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Return one batch without padding, as we and as they take it."""
    setup = make_setup(name, config, name)
    items = rows(name, 2)
    if name == "text":
        items = [{"tokens": item["tokens"][:20]} for item in items]
    if name == "speech":
        items = [{"audio": item["audio"][:8000]} for item in items]
    ours = setup.modality.batch(items, None, setup.config)
    key = {"speech": "input_values", "text": "input_ids", "vision": "pixel_values"}[name]
    return ours, {key: ours["inputs"]}


@needs_golden
@pytest.mark.parametrize("name", FILES)
def test_golden_weights_in_our_model_give_the_golden_numbers(name, tmp_path):
    folder, dumped = golden_folder(name, tmp_path)
    model = model_of(*read_folder(folder))
    key = {"hf_audio": "input/input_values", "hf_text": "input/input_ids"}.get(name, "input/pixel_values")
    inputs = {"inputs": dumped[key]}
    encoded = model.encoder(inputs)
    states = torch.cat([encoded.extra, encoded.x], dim=1)
    real = torch.ones(states.shape[:2], dtype=bool) if encoded.padding is None else ~encoded.padding
    case = "no_attention_mask/" if name == "hf_audio" else ""
    torch.testing.assert_close(states[real], dumped[f"{case}last_hidden_state"][real], atol=1e-5, rtol=0)
    if name != "hf_audio":
        torch.testing.assert_close(model.logits(inputs)[0], dumped["classification/logits"], atol=1e-5, rtol=0)
        mean = model(inputs | {"labels": dumped["classification/labels"]}).total / len(states)
        assert mean.item() == pytest.approx(dumped["classification/loss"].item(), abs=1e-5)


@needs_golden
@pytest.mark.parametrize("name", [name for name in FILES if name != "hf_text"])  # text is masked in its ids
def test_golden_hidden_tokens_are_hidden_the_same_way(name, tmp_path):
    folder, dumped = golden_folder(name, tmp_path)
    encoder = model_of(*read_folder(folder)).encoder
    if name == "hf_audio":
        inputs = {"inputs": dumped["input/input_values"][:1], "mask": dumped["masked/mask_time_indices"][:1].bool()}
    else:
        inputs = {"inputs": dumped["input/pixel_values"], "mask": dumped["masked/bool_masked_pos"].bool()}
    encoded = encoder(inputs)
    states = torch.cat([encoded.extra, encoded.x], dim=1)
    expected = dumped["masked/last_hidden_state"][: len(states)]
    torch.testing.assert_close(states, expected, atol=1e-5, rtol=0)


@needs_golden
def test_golden_speech_is_the_same_alone_but_not_beside_padding(tmp_path):
    """Theirs lets the padding leak in at the second positional convolution; ours gives what a shorter batch gives."""
    folder, dumped = golden_folder("hf_audio", tmp_path)
    model = model_of(*read_folder(folder))
    lengths = dumped["input/attention_mask"].sum(dim=1)
    logits, padding = model.logits({"inputs": dumped["input/input_values"], "lengths": lengths})
    torch.testing.assert_close(logits[0], dumped["ctc/logits"][0], atol=1e-5, rtol=0)
    real = ~padding[1]
    assert (logits[1] - dumped["ctc/logits"][1])[real].abs().max() > 0.1
    alone, _ = model.logits({"inputs": dumped["input/input_values"][1:, : lengths[1]]})
    torch.testing.assert_close(logits[1][real], alone[0], atol=1e-5, rtol=0)
    labels = dumped["ctc/labels"].masked_fill(dumped["ctc/labels"] < 0, -1)
    loss = ctc_loss(dumped["ctc/logits"], padding, labels)
    assert loss.item() == pytest.approx(dumped["ctc/loss"].item(), rel=1e-6)


@needs_golden
@pytest.mark.parametrize("name", FILES)
def test_golden_weights_come_back_bit_by_bit(name, tmp_path):
    folder, _ = golden_folder(name, tmp_path)
    theirs = load_file(folder / "model.safetensors")
    if name == "hf_text":  # its token type is zero in published models; any other one becomes a part of the positions
        theirs["data2vec_text.embeddings.token_type_embeddings.weight"].zero_()
        save_file(theirs, folder / "model.safetensors")
    write_folder(tmp_path / "out", *read_folder(folder))
    back = load_file(tmp_path / "out" / "model.safetensors")
    assert set(back) == set(theirs)
    assert all(torch.equal(back[key], theirs[key]) for key in theirs)
    before, after = (json.loads((at / "config.json").read_text()) for at in (folder, tmp_path / "out"))
    chosen = {"architectures", "dtype", "label2id", "classifier_dropout", "ctc_zero_infinity"}
    assert {key for key in after if after[key] != before.get(key)} <= chosen


@pytest.mark.parametrize(("name", "head"), HEADS)
def test_their_classes_load_our_runs_and_give_our_numbers(name, head, tmp_path, transformers):
    config, weights = run(name, head)
    saved = write_folder(tmp_path / "out", config, weights)
    theirs, info = getattr(transformers, saved).from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(info.values()), info
    ours, inputs = real_inputs(name, config)
    with torch.no_grad():
        found = theirs.eval()(**inputs)
        if head:
            expected, _ = model_of(config, weights).logits(ours)
            found = found.logits
        else:
            encoder = make_setup(name, config, name).encoder().eval()
            encoder.load_state_dict({key.removeprefix("encoder."): value for key, value in weights.items()})
            encoded = encoder(ours)
            expected, found = torch.cat([encoded.extra, encoded.x], dim=1), found.last_hidden_state
    assert expected.std() > (0.1 if head != "score" else 0.005), "two numbers are near each other by chance"
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_their_ctc_loss_of_one_utterance_is_ours(tmp_path, transformers):
    config, weights = run("speech", "ctc")
    write_folder(tmp_path / "out", config, weights)
    theirs = transformers.Data2VecAudioForCTC.from_pretrained(tmp_path / "out").eval()
    ours, inputs = real_inputs("speech", config)
    labels = torch.tensor([[5, 6, 7], [9, 8, -1]])
    expected = model_of(config, weights)(ours | {"labels": labels}).total
    found = theirs(**inputs, labels=labels.masked_fill(labels < 0, -100)).loss
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("bias", ["shared", "block", "none"])
def test_position_biases_survive_in_every_form(bias, tmp_path, transformers):
    config, weights = run("vision", "mean", bias=bias, mask_token=False)
    write_folder(tmp_path / "out", config, weights)
    theirs = transformers.Data2VecVisionForImageClassification.from_pretrained(tmp_path / "out").eval()
    ours, inputs = real_inputs("vision", config)
    expected, _ = model_of(config, weights).logits(ours)
    torch.testing.assert_close(theirs(**inputs).logits, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("name", "head"), HEADS)
def test_what_they_save_is_read_with_every_value(name, head, tmp_path, transformers):
    config, weights = run(name, head)
    saved = write_folder(tmp_path / "out", config, weights)
    getattr(transformers, saved).from_pretrained(tmp_path / "out").save_pretrained(tmp_path / "theirs")
    if head == "ctc":
        (tmp_path / "theirs/vocab.json").write_bytes((tmp_path / "out/vocab.json").read_bytes())
    back, tensors = read_folder(tmp_path / "theirs")
    assert all(torch.equal(tensors[key], weights[key]) for key in weights | tensors)
    local = ("position_std", "train_positions", "dropout", "taps", "class_std")
    assert {k: v for k, v in back["model"]["local"].items() if k not in local} == {
        k: v if not isinstance(v, list) else tuple(v) for k, v in config["model"]["local"].items() if k not in local
    }
    unsaid = ("init", "activation_dropout") if name != "speech" else ("init",)
    assert {k: v for k, v in back["model"]["trunk"].items() if k not in unsaid} == {
        k: v for k, v in config["model"]["trunk"].items() if k not in unsaid
    }
    assert (back.get("head"), back.get("symbols")) == (head, config.get("symbols"))
    assert back["source"] == f"Hugging Face {saved}"


@settings(deadline=None, max_examples=15)
@given(
    st.sampled_from(HEADS),
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(1, 3),
    st.sampled_from(["shared", "block"]),
)
def test_any_size_goes_there_and_back(tmp_path_factory, kind, depth, heads, layers, bias):
    name, head = kind
    config, _ = run(name, head)
    config["model"]["trunk"] |= {"depth": depth, "heads": heads, "width": 12 * heads, "feedforward": 8 * layers}
    if name == "speech":
        config["model"]["local"] |= {"kernels": [4] * layers, "strides": [2] * layers, "position_layers": layers}
        config["model"]["local"]["position_groups"] = heads
    if name == "vision":
        config["model"]["local"]["bias"] = bias
    setup = make_setup(name, config, name)
    weights = {f"encoder.{key}": torch.randn(value.shape) for key, value in setup.encoder().state_dict().items()}
    if head:
        model = Supervised(setup.encoder(), HeadConfig(head, 0, 0.0), 12 * heads, len(config["symbols"]))
        weights |= {f"head.{key}": torch.randn(value.shape) for key, value in model.head.state_dict().items()}
    folder = tmp_path_factory.mktemp("any") / "out"
    write_folder(folder, config, weights)
    back, tensors = read_folder(folder)
    assert set(tensors) == set(weights)
    assert all(torch.equal(tensors[key], weights[key]) for key in weights)
    assert back["model"]["trunk"]["depth"] == depth


def test_weights_in_several_files_and_in_half_precision_are_read(tmp_path):
    config, weights = run("text", "first")
    write_folder(tmp_path, config, weights)
    theirs = {key: value.half() for key, value in load_file(tmp_path / "model.safetensors").items()}
    (tmp_path / "model.safetensors").unlink()
    index = {key: f"model-{number % 2}.safetensors" for number, key in enumerate(theirs)}
    for file in set(index.values()):
        save_file({key: value for key, value in theirs.items() if index[key] == file}, tmp_path / file)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    _, tensors = read_folder(tmp_path)
    assert all(torch.equal(tensors[key], weights[key].half().float()) for key in weights)


def test_weights_in_a_torch_file_are_read(tmp_path):
    config, weights = run("speech", None)
    write_folder(tmp_path, config, weights)
    torch.save(load_file(tmp_path / "model.safetensors"), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    _, tensors = read_folder(tmp_path)
    assert all(torch.equal(tensors[key], weights[key]) for key in weights)


def test_a_masked_language_model_is_read_without_its_head(tmp_path, transformers):
    settings = {"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = transformers.Data2VecTextConfig(**settings, intermediate_size=48, max_position_embeddings=34)
    transformers.Data2VecTextForMaskedLM(config).save_pretrained(tmp_path)
    found, weights = read_folder(tmp_path)
    assert "head" not in found
    assert not [name for name in weights if name.startswith("head.")]
    assert found["table"] == {"vocabulary": 50, "tokens": 32}


CHANGES = [
    ("speech", {"conv_bias": True}, "conv_bias True"),
    ("speech", {"add_adapter": True}, "add_adapter True"),
    ("speech", {"layer_norm_eps": 1e-6}, "layer_norm_eps 1e-06"),
    ("speech", {"conv_dim": [8] * 6 + [9]}, "conv_dim"),
    ("speech", {"hidden_act": "relu"}, "hidden_act 'relu'"),
    ("speech", {"num_hidden_layers": 3}, "lacks 16 of the model's weights, such as encoder.layers.2"),
    ("speech", {"num_hidden_layers": 1}, "no place here, such as 'encoder.layers.1"),
    ("speech", {"intermediate_size": 40}, "encoder.layers.0.feed_forward.intermediate_dense.weight of shape"),
    ("speech", {"architectures": ["Data2VecAudioForXVector"]}, "Data2VecAudioForXVector"),
    ("speech", {"model_type": "wav2vec2"}, "data2vec-audio"),
    ("text", {"pad_token_id": 0}, "pad_token_id 0"),
    ("text", {"is_decoder": True}, "is_decoder True"),
    ("vision", {"use_absolute_position_embeddings": True}, "use_absolute_position_embeddings True"),
    ("vision", {"use_relative_position_bias": True}, "both true"),
    ("vision", {"image_size": [8, 16]}, "not square"),
    ("vision", {"patch_size": 3}, "must divide"),
]


@pytest.mark.parametrize(("name", "change", "sentence"), CHANGES)
def test_what_we_do_not_have_is_one_sentence(name, change, sentence, tmp_path):
    write_folder(tmp_path, *run(name, None))
    said = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(said | change))
    with pytest.raises(UserError, match=sentence) as error:
        read_folder(tmp_path)
    assert "\n" not in str(error.value)


def test_folders_that_are_incomplete_or_damaged_are_one_sentence(tmp_path):
    with pytest.raises(UserError, match=r"config.json is missing"):
        read_folder(tmp_path)
    write_folder(tmp_path / "run", *run("speech", "ctc"))
    (tmp_path / "run/vocab.json").unlink()
    with pytest.raises(UserError, match=r"vocab.json"):
        read_folder(tmp_path / "run")
    write_folder(tmp_path / "run", *run("speech", None))
    (tmp_path / "run/model.safetensors").write_bytes(b"abc")
    with pytest.raises(UserError, match=r"model.safetensors cannot be read"):
        read_folder(tmp_path / "run")
    (tmp_path / "run/model.safetensors").unlink()
    (tmp_path / "run/model.safetensors.index.json").write_text('{"weight_map": {"a": "../../secret.safetensors"}}')
    with pytest.raises(UserError, match="outside its folder"):
        read_folder(tmp_path / "run")
    (tmp_path / "run/model.safetensors.index.json").unlink()
    with pytest.raises(UserError, match=r"no model.safetensors and no pytorch_model.bin"):
        read_folder(tmp_path / "run")


@pytest.mark.parametrize(
    ("name", "head", "path", "value", "sentence"),
    [
        ("vision", "mean", "model.local.positions", 0.25, "model.local.positions is 0.25"),
        ("vision", "mean", "model.trunk.final_norm", True, "norm before the mean"),
        ("vision", None, "version", 2, "version is 2"),
        ("speech", None, "model.local.alibi", True, "alibi is True"),
        ("speech", None, "model.trunk.epsilon", 1e-6, "epsilon is 1e-06"),
        ("text", None, "model.trunk.layer_scale", 0.1, "layer_scale is 0.1"),
    ],
)
def test_what_their_own_classes_cannot_express_gets_another_one(name, head, path, value, sentence):
    config, _ = run(name, head)
    assert form_for(config, head) is FORMATS[name]
    *keys, last = path.split(".")
    block = config
    for key in keys:
        block = block[key]
    block[last] = value
    with pytest.raises(ValueError, match=sentence):
        check_expressible(FORMATS[name], config, head)
    assert form_for(config, head) is huggingface_v2


def test_letters_that_they_cannot_number_are_one_sentence_and_no_folder(tmp_path):
    config, weights = run("speech", "ctc")
    with pytest.raises(UserError, match="symbols start with"):
        write_folder(tmp_path / "out", config | {"symbols": ["a", "b"]}, weights)
    assert not list(tmp_path.iterdir())


def test_a_head_that_they_do_not_have_is_one_sentence(tmp_path):
    config, weights = run("speech", None)
    weights |= {"head.0.weight": torch.zeros(3, 32), "head.0.bias": torch.zeros(3)}
    with pytest.raises(UserError, match="no speech class with the head"):
        write_folder(tmp_path / "out", config | {"symbols": CLASSES}, weights)


def test_a_run_that_is_not_whole_is_one_sentence(tmp_path):
    config, weights = run("speech", None)
    del weights["encoder.local.projection.bias"]
    with pytest.raises(UserError, match=r"no weight 'encoder.local.projection.bias' of shape \[32\]"):
        write_folder(tmp_path / "out", config, weights)
    del config["model"]["trunk"]["final_norm"]
    with pytest.raises(UserError, match=r"model.trunk.final_norm is missing"):
        write_folder(tmp_path / "out", config, weights)
    assert not list(tmp_path.iterdir())


def test_classes_without_names_get_numbers():
    assert class_names({"num_labels": 3}) == ["LABEL_0", "LABEL_1", "LABEL_2"]
    assert class_names({"id2label": {"1": "b", "0": "a"}}) == ["a", "b"]
    with pytest.raises(ValueError, match="id2label"):
        class_names({"id2label": {"0": "a", "2": "b"}})
