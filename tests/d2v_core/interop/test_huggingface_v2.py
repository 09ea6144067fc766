"""Our numbers from a folder that brings its own class, loaded by Hugging Face's library as anybody would load it."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from d2v_core.errors import UserError
from d2v_core.interop import huggingface_v2
from d2v_core.interop.huggingface import read_folder, write_folder
from d2v_core.model.supervised import HeadConfig, Supervised
from d2v_core.run import read_config, read_weights, write_run
from d2v_core.setup import Setup, make_setup
from stages import training
from tests.d2v_core.blocks import rows, small_block
from tests.tiny import Project, contents

LETTERS = ["<s>", "<pad>", "</s>", "<unk>", "|", *"abcdefghijklmno"]
CLASSES = ["red", "green", "blue"]
AUTO = {None: "AutoModel", "ctc": "AutoModelForCTC"}
AUTO |= dict.fromkeys(("first", "score"), "AutoModelForSequenceClassification")
AUTO |= dict.fromkeys(("mean", "class"), "AutoModelForImageClassification")
KINDS = [("speech", None, 2), ("speech", "ctc", 2), ("text", None, 2), ("text", "first", 2), ("text", "score", 2)]
KINDS += [("vision", head, version) for head in (None, "mean", "class") for version in (2, 1)]
INPUTS = {"speech": "input_values", "text": "input_ids", "vision": "pixel_values"}


@pytest.fixture(scope="module")
def transformers(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        library = pytest.importorskip("transformers", reason="the real classes come with the extra `dev`")
        patch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path_factory.mktemp("modules")))
        library.utils.logging.disable_progress_bar()
        yield library


def run(name: str, head: str | None, version: int = 2, **changes: dict) -> tuple[dict, dict[str, torch.Tensor]]:
    """Return a small run whose weights are all random; ``changes`` to its blocks ``local`` and ``trunk``."""
    block = small_block(name, version)
    block["model"]["trunk"] |= {"width": 24, "heads": 3}
    for part, values in changes.items():
        block["model"][part] |= values
    setup = make_setup(name, block, name)
    return random_run(setup, head, {"ctc": LETTERS, "score": ["score"]}.get(head, CLASSES))


def random_run(setup: Setup, head: str | None, symbols: list[str]) -> tuple[dict, dict[str, torch.Tensor]]:
    """Return a run of ``setup`` whose weights are all random."""
    config, model = setup.describe(), {"encoder": setup.encoder()}
    if head:
        config |= {"head": head, "symbols": symbols}
        model["head"] = our_head(setup, head, len(symbols)).head
    torch.manual_seed(1)
    names = torch.nn.ModuleDict(model).state_dict()
    weights = {key: torch.randn(tensor.shape) * 0.3 + key.endswith("norm.weight") for key, tensor in names.items()}
    if "encoder.local.alibi_scale" in weights:
        weights["encoder.local.alibi_scale"][0] = -0.5  # counts as zero
    return json.loads(json.dumps(config)), weights


def our_head(setup: Setup, head: str, symbols: int) -> Supervised:
    return Supervised(setup.encoder(), HeadConfig(head, freeze=0, smoothing=0.0), setup.trunk.width, symbols)


def ours(config: dict, weights: dict[str, torch.Tensor]) -> torch.nn.Module:
    """Return our encoder or fine-tuned model of a run."""
    setup = make_setup(config["modality"], config, "run")
    if "head" in config:
        model = our_head(setup, config["head"], len(config["symbols"]))
    else:
        model = torch.nn.ModuleDict({"encoder": setup.encoder()})
    model.load_state_dict(weights)
    return model.eval()


def padded_batch(name: str, config: dict) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Return a batch, where there is padding with some of it, as we and as they take it."""
    setup = make_setup(name, config, name)
    batch = setup.modality.batch(rows(name, 3), None, setup.config)
    theirs = {INPUTS[name]: batch["inputs"]}
    if name == "speech":
        theirs["attention_mask"] = (torch.arange(batch["inputs"].shape[1]) < batch["lengths"][:, None]).long()
    if name == "text":
        theirs["attention_mask"] = (batch["inputs"] != 1).long()
    return batch, theirs


@torch.no_grad()
def our_answer(
    config: dict, weights: dict, batch: dict, dtype: torch.dtype = torch.float32
) -> tuple[torch.Tensor, torch.Tensor | None, list]:
    """Return logits or features, class tokens in front, with what of them is padding, and every block's output."""
    model = ours(config, weights).to(dtype)
    encoded = model.encoder(batch)
    if config.get("head"):
        logits, padding = model.logits(batch)
        return logits, padding if logits.ndim == 3 else None, encoded.outputs
    return torch.cat([encoded.extra, encoded.x], dim=1), encoded.padding, encoded.outputs


@torch.no_grad()
def their_answer(model: torch.nn.Module, inputs: dict, **options: object) -> tuple[torch.Tensor, object]:
    found = model.eval()(**inputs, **options)
    return found.get("logits", found.get("last_hidden_state")), found


def load(transformers: object, folder: Path, head: str | None, **options: object) -> object:
    return getattr(transformers, AUTO[head]).from_pretrained(folder, trust_remote_code=True, **options)


def assert_same(found: torch.Tensor, expected: torch.Tensor, padding: torch.Tensor | None, within: float = 1e-5):
    real = torch.ones(expected.shape[:2], dtype=bool) if padding is None else ~padding
    torch.testing.assert_close(found.to(expected.dtype)[real], expected[real], atol=within, rtol=0)


@pytest.mark.parametrize(("name", "head", "version"), KINDS)
def test_the_library_gives_our_numbers_of_padded_batches(name, head, version, tmp_path, transformers):
    config, weights = run(name, head, version)
    written = write_folder(tmp_path / "out", config, weights)
    model, info = load(transformers, tmp_path / "out", head, output_loading_info=True)
    assert type(model).__name__ == written
    assert not any(info.values()), info
    batch, inputs = padded_batch(name, config)
    expected, padding, outputs = our_answer(config, weights, batch)
    found, whole = their_answer(model, inputs, output_hidden_states=True)
    assert expected.std() > 0.1
    assert_same(found, expected, padding)
    extra = name == "vision"
    assert len(whole.hidden_states) == len(outputs) + 1
    for state, output in zip(whole.hidden_states[1:], outputs, strict=True):
        real = torch.ones(output.shape[:2], dtype=bool)
        if name != "vision":
            real = ~ours(config, weights).encoder(batch).padding
        torch.testing.assert_close(state[:, extra:][real], output[real], atol=1e-5, rtol=0)


@pytest.mark.parametrize(("name", "head"), [("speech", None), ("speech", "ctc"), ("text", None), ("text", "first")])
def test_an_item_is_the_same_alone_and_beside_a_longer_one(name, head, tmp_path, transformers):
    config, weights = run(name, head)
    write_folder(tmp_path / "out", config, weights)
    model = load(transformers, tmp_path / "out", head)
    _, inputs = padded_batch(name, config)
    together, _ = their_answer(model, inputs)
    size = inputs["attention_mask"][0].sum()
    assert size < inputs["attention_mask"].shape[1]
    alone, _ = their_answer(model, {INPUTS[name]: inputs[INPUTS[name]][:1, :size]})
    torch.testing.assert_close(together[:1, : alone.shape[1]], alone, atol=1e-5, rtol=0)


def test_text_without_a_mask_knows_padding_by_its_id(tmp_path, transformers):
    config, weights = run("text", "first")
    write_folder(tmp_path / "out", config, weights)
    model = load(transformers, tmp_path / "out", "first")
    batch, inputs = padded_batch("text", config)
    expected, *_ = our_answer(config, weights, batch)
    ids = inputs["input_ids"]
    for mask in (None, torch.ones_like(ids)):
        found, _ = their_answer(model, {"input_ids": ids}, attention_mask=mask)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    masked, _ = their_answer(model, {"input_ids": ids.masked_fill(ids == 1, 7)}, attention_mask=(ids != 1).long())
    torch.testing.assert_close(masked, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("name", "version"), [("speech", 2), ("vision", 2), ("vision", 1)])
def test_hidden_places_are_hidden_the_same_way(name, version, tmp_path, transformers):
    config, weights = run(name, None, version)
    write_folder(tmp_path / "out", config, weights)
    model = load(transformers, tmp_path / "out", None)
    batch, inputs = padded_batch(name, config)
    plain, padding, _ = our_answer(config, weights, batch)
    torch.manual_seed(3)
    mask = torch.rand(plain[:, name == "vision" :].shape[:2]) < 0.4
    expected, *_ = our_answer(config, weights, batch | {"mask": mask})
    found, _ = their_answer(model, inputs, mask=mask)
    assert (expected - plain).abs().max() > 0.1
    assert_same(found, expected, padding)


@settings(deadline=None, max_examples=12)
@given(st.data())
def test_any_encoder_of_any_version_comes_through(tmp_path_factory, transformers, data):
    name, head, _ = data.draw(st.sampled_from(KINDS))
    heads = data.draw(st.integers(1, 5))
    trunk = {"heads": heads, "width": 12 * heads, "depth": data.draw(st.integers(1, 3))}
    choices = {"norm": ["pre", "post"], "layer_scale": [None, 0.5], "epsilon": [1e-5, 1e-3]}
    choices |= {key: [True, False] for key in ("input_norm", "final_norm", "key_bias")}
    trunk |= {key: data.draw(st.sampled_from(values)) for key, values in choices.items()}
    local = {}
    if name == "vision":
        options = {"bias": ["shared", "block", "none"], "positions": [0.0, 0.3], "patch": [2, 4]}
        local = {key: data.draw(st.sampled_from(values)) for key, values in options.items()}
    if name == "speech":
        options = {"alibi": [True, False], "position_kernel": [4, 5], "position_layers": [1, 2], "kernels": [[8, 3]]}
        local = {key: data.draw(st.sampled_from(values)) for key, values in options.items()}
        local |= {"strides": [5, 2], "position_groups": heads}
    if name != "text":
        local["mask_token"] = data.draw(st.booleans())
    config, weights = run(name, head, 2, trunk=trunk, local=local)
    folder = tmp_path_factory.mktemp("any") / "out"
    write_folder(folder, config, weights)
    batch, inputs = padded_batch(name, config)
    if name != "text":
        batch["inputs"] = inputs[INPUTS[name]] = batch["inputs"].double()
    exact = {key: value.double() for key, value in weights.items()}
    expected, padding, _ = our_answer(config, exact, batch, torch.float64)
    found, _ = their_answer(load(transformers, folder, head).double(), inputs)
    assert found.dtype == torch.float64
    assert_same(found, expected.double(), padding, within=1e-10 if head is None else 1e-5)  # our logits are rounded
    back, tensors = read_folder(folder)
    assert set(tensors) == set(weights)
    assert all(torch.equal(tensors[key], weights[key]) for key in weights)
    assert json.loads(json.dumps(back["model"])) == config["model"]


@pytest.mark.parametrize(("name", "head", "version"), KINDS)
def test_what_the_library_saves_is_read_back_whole(name, head, version, tmp_path, transformers):
    config, weights = run(name, head, version)
    written = write_folder(tmp_path / "out", config, weights)
    load(transformers, tmp_path / "out", head).save_pretrained(tmp_path / "again")
    back, tensors = read_folder(tmp_path / "again")
    assert set(tensors) == set(weights)
    assert all(torch.equal(tensors[key], weights[key]) for key in weights)
    assert json.loads(json.dumps(back)) == config | {"source": f"Hugging Face {written}"}
    again, info = load(transformers, tmp_path / "again", head, output_loading_info=True)
    assert type(again).__name__ == written
    assert not any(info.values()), info
    write_folder(tmp_path / "third", back, tensors)
    first, third = contents(tmp_path / "out"), contents(tmp_path / "third")
    assert all(first[name] == third[name] for name in first if name != "README.md")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("name", "head", "version"), [kind for kind in KINDS if kind[1]])
def test_half_precision_is_near(name, head, version, dtype, tmp_path, transformers):
    config, weights = run(name, head, version)
    write_folder(tmp_path / "out", config, weights)
    model = load(transformers, tmp_path / "out", head, dtype=dtype)
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}
    batch, inputs = padded_batch(name, config)
    expected, padding, _ = our_answer(config, weights, batch)
    found, _ = their_answer(model, inputs)
    assert found.dtype == dtype
    assert_same(found, expected, padding, within=0.2 if dtype == torch.bfloat16 else 0.02)


@pytest.mark.parametrize(
    ("name", "head"), [("speech", "ctc"), ("vision", "mean"), ("text", "first"), ("text", "score")]
)
def test_losses_are_ours(name, head, tmp_path, transformers):
    config, weights = run(name, head)
    write_folder(tmp_path / "out", config, weights)
    model = load(transformers, tmp_path / "out", head)
    batch, inputs = padded_batch(name, config)
    labels = {"ctc": [[5, 6, 7], [9, 8, -1], [4, -1, -1]], "score": [0.25, 1.0, 0.0]}.get(head, [0, 2, 1])
    labels = torch.tensor(labels)
    expected = ours(config, weights)(batch | {"labels": labels}).total.item()
    found = model.eval()(**inputs, labels=labels.masked_fill(labels < 0, -100)).loss.item()
    assert found * (1 if head == "ctc" else len(labels)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("name", "head"), [("speech", "ctc"), ("vision", "mean"), ("text", "first")])
def test_a_pretrained_folder_takes_a_new_head_and_learns(name, head, tmp_path, transformers):
    config, weights = run(name, None)
    write_folder(tmp_path / "out", config, weights)
    model, info = load(transformers, tmp_path / "out", head, num_labels=7, output_loading_info=True)
    assert {key.partition(".")[0] for key in info["missing_keys"]} == {"head"}
    assert not info["unexpected_keys"]
    torch.manual_seed(0)
    _, inputs = padded_batch(name, config)
    labels = torch.tensor([[5, 6], [2, 1], [4, -100]] if head == "ctc" else [0, 6, 1])
    optimizer = torch.optim.Adam(model.train().parameters(), lr=1e-3)
    losses = []
    for _ in range(10):
        loss = model(**inputs, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.95 * losses[0]
    model.save_pretrained(tmp_path / "tuned")
    found, _ = read_folder(tmp_path / "tuned")
    assert len(found["symbols"]) == 7


def test_the_features_of_a_fine_tuned_folder_come_out_of_the_plain_model(tmp_path, transformers):
    config, weights = run("speech", "ctc")
    write_folder(tmp_path / "out", config, weights)
    encoder = {key: value for key, value in weights.items() if key.startswith("encoder.")}
    batch, inputs = padded_batch("speech", config)
    plain = {key: value for key, value in config.items() if key not in ("head", "symbols")}
    expected, padding, _ = our_answer(plain, encoder, batch)
    found, whole = their_answer(load(transformers, tmp_path / "out", None), inputs)
    assert_same(found, expected, padding)
    (features,) = load(transformers, tmp_path / "out", None).eval()(**inputs, return_dict=False)
    torch.testing.assert_close(features, whole.last_hidden_state)


CHANGES = [
    ({"modality": "smell"}, "describes none of data2vec-audio, data2vec-text, data2vec-vision, data2vec2"),
    ({"modality": ["speech"]}, "describes none of"),
    ({"version": 3}, "version must be 1 or 2, not 3"),
    ({"model": None}, "model.trunk is missing"),
    ({"table": {"sample_rate": 16000}}, "table.min_seconds is missing"),
    ({"architectures": ["Data2Vec2ForXVector"]}, "Data2Vec2ForXVector"),
]


@pytest.mark.parametrize(("change", "sentence"), CHANGES)
def test_a_folder_that_we_cannot_have_written_is_one_sentence(change, sentence, tmp_path):
    write_folder(tmp_path, *run("speech", None))
    said = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(said | change))
    with pytest.raises(UserError, match=sentence) as error:
        read_folder(tmp_path)
    assert "\n" not in str(error.value)


def test_letters_that_a_tokenizer_cannot_number_are_one_sentence_and_no_folder(tmp_path):
    config, weights = run("speech", "ctc")
    with pytest.raises(UserError, match="symbols start with"):
        write_folder(tmp_path / "out", config | {"symbols": LETTERS[::-1]}, weights)
    assert not list(tmp_path.iterdir())


def test_what_the_own_classes_can_express_is_theirs(tmp_path):
    assert write_folder(tmp_path / "a", *run("speech", "ctc", 1)) == "Data2VecAudioForCTC"
    positions = {"local": {"positions": 0.0}, "trunk": {"final_norm": False}}
    assert (
        write_folder(tmp_path / "b", *run("vision", "mean", 1, **positions)) == "Data2VecVisionForImageClassification"
    )
    assert not (tmp_path / "a" / huggingface_v2.MODULE).exists()
    assert write_folder(tmp_path / "c", *run("speech", "ctc", 2)) == "Data2Vec2ForCTC"
    assert (tmp_path / "c" / huggingface_v2.MODULE).read_bytes() == huggingface_v2.SOURCE.read_bytes()


@pytest.mark.parametrize(("name", "head", "version"), [*KINDS, ("speech", "ctc", 1), ("text", None, 1)])
def test_the_card_says_how_the_folder_is_loaded(name, head, version, tmp_path, transformers):
    config, weights = run(name, head, version)
    written = write_folder(tmp_path / "out", config | {"seed": 3, "table_digest": "0123abcd"}, weights)
    card = (tmp_path / "out/README.md").read_text()
    assert f"# data2vec {version}.0, {name}" in card
    assert "table_digest: `0123abcd`" in card
    assert "License: to be named" in card
    code = card.partition("```python\n")[2].partition("```")[0]
    first, second, _ = code.splitlines()
    assert ("trust_remote_code=True" in second) == written.startswith("Data2Vec2")
    if head is None or name == "vision":
        place = {}
        exec(f"{first}\n{second.replace('path/to/this/folder', str(tmp_path / 'out'))}", place)
        assert type(place["model"]).__name__ == written


def exported(project: Project, modality: str, head: str | None, symbols: list[str]) -> tuple[dict, dict, str]:
    """Write a random run of version 2 into the project and export it; returns the run and the folder."""
    project.set(**{f"modalities__{modality}__version": 2})
    if modality == "text":
        project.write("text")
        project.done("vocabulary", "text")
    config, weights = random_run(training.read_setup(modality), head, symbols)
    write_run(project.folder / "runs/a", config | {"seed": 0}, weights | {"decoder.projection.weight": torch.ones(2)})
    assert project.done("export", "runs/a", "out").startswith("runs/a: Data2Vec2")
    weights = {key: value for key, value in read_weights(Path("runs/a")).items() if not key.startswith("decoder.")}
    return read_config(Path("runs/a")), weights, "out"


def test_speech_is_transcribed_by_the_pipeline(project, transformers):
    config, weights, folder = exported(project, "speech", "ctc", LETTERS)
    pipeline = transformers.pipeline("automatic-speech-recognition", folder, trust_remote_code=True)
    waves = [np.random.default_rng(seed).normal(0, 0.1, 8000 + 900 * seed).astype(np.float32) for seed in range(2)]
    items = [{"raw": wave, "sampling_rate": 16000} for wave in waves]
    features = pipeline.feature_extractor(waves, sampling_rate=16000, return_tensors="pt", padding=True)
    batch = {"inputs": features["input_values"], "lengths": features["attention_mask"].sum(dim=1)}
    logits, padding, _ = our_answer(config, weights, batch)
    texts = [pipeline.tokenizer.decode(row[~hidden].argmax(dim=1)) for row, hidden in zip(logits, padding, strict=True)]
    assert [pipeline(dict(item))["text"] for item in items] == texts
    assert "".join(texts)
    assert "text" in pipeline(dict(items[0]), chunk_length_s=0.4)


def test_images_are_classified_by_the_pipeline(project, transformers):
    project.set(modalities__vision__table__channels=3)
    for key in ("mean", "std"):
        project.set(**{f"modalities__vision__model__augment__{key}": [0.4, 0.5, 0.6]})
    config, weights, folder = exported(project, "vision", "mean", CLASSES)
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3)).astype(np.uint8)
    setup = make_setup("vision", config, "run")
    batch = setup.modality.batch([{"image": pixels.transpose(2, 0, 1).ravel()}], None, setup.config)
    expected, *_ = our_answer(config, weights, batch)
    pipeline = transformers.pipeline("image-classification", folder, trust_remote_code=True)
    found = pipeline(transformers.image_utils.PIL.Image.fromarray(pixels))
    scores = {answer["label"]: answer["score"] for answer in found}
    assert scores == pytest.approx(dict(zip(CLASSES, expected[0].softmax(dim=0).tolist(), strict=True)), abs=1e-5)


def test_sentences_are_classified_by_the_pipeline(project, transformers):
    config, weights, folder = exported(project, "text", "first", CLASSES)
    pipeline = transformers.pipeline("text-classification", folder, top_k=None, trust_remote_code=True)
    ids = pipeline.tokenizer("the cat sat", return_tensors="pt")["input_ids"]
    expected, *_ = our_answer(config, weights, {"inputs": ids})
    scores = {answer["label"]: answer["score"] for answer in pipeline(["the cat sat"])[0]}
    assert scores == pytest.approx(dict(zip(CLASSES, expected[0].softmax(dim=0).tolist(), strict=True)), abs=1e-5)
    before = contents(Path(folder))
    project.done("export", "runs/a", folder)
    assert contents(Path(folder)) == before


def test_features_of_text_come_out_of_the_pipeline(project, transformers):
    config, weights, folder = exported(project, "text", None, [])
    pipeline = transformers.pipeline("feature-extraction", folder, trust_remote_code=True)
    ids = pipeline.tokenizer("the cat sat", return_tensors="pt")["input_ids"]
    expected, *_ = our_answer(config, weights, {"inputs": ids})
    torch.testing.assert_close(pipeline("the cat sat", return_tensors=True), expected, atol=1e-5, rtol=0)
