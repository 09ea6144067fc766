"""Trained runs as Hugging Face's pipelines take them: the same answers from the same raw items."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from d2v_core.finetuning import predict
from d2v_core.model.supervised import HeadConfig, Supervised
from d2v_core.run import read_config, read_weights, write_run
from d2v_core.setup import make_setup
from stages import readers, tasks
from tests.tiny import SENTENCE, Project, contents

MODALITIES = {"transcribe": "speech", "digits": "vision", "topics": "text"}


@pytest.fixture
def transformers(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return pytest.importorskip("transformers", reason="the real classes come with the extra `dev`")


def export_trained(project: Project, name: str, channels: int = 3) -> tuple[list, list[torch.Tensor], tasks.Task, str]:
    """Train a task and export it; returns the rows of the test split, our logits of them, the task and the folder."""
    project.set(modalities__vision__version=1, modalities__vision__model__local__positions=0.0)
    project.set(modalities__vision__table__channels=channels)
    for key in ("mean", "std"):
        project.set(**{f"modalities__vision__model__augment__{key}": [0.4, 0.5, 0.6][:channels]})
    project.prepare(*dict.fromkeys([MODALITIES[name], project.params["tasks"][name]["table"]]))
    project.done("finetune", name, "scratch")
    run, folder = str(tasks.run_folder(name, "scratch", 0)), f"exported/{name}"
    assert folder in project.done("export", run, folder)
    task, model = tasks.load_finetuned(tasks.read_task(name), "scratch", 0)
    table = task.table("test")
    logits = list(predict(task.setup, model, table, torch.device("cpu")))
    return [table[number] for number in range(len(table))], logits, task, folder


def test_speech_is_transcribed_by_the_pipeline(project, transformers):
    rows, logits, task, folder = export_trained(project, "transcribe")
    pipeline = transformers.pipeline("automatic-speech-recognition", folder)
    for row, expected in zip(rows, logits, strict=True):
        wave = row["audio"] / np.float32(32768)
        features = pipeline.feature_extractor(wave, sampling_rate=16000, return_tensors="pt")
        found = pipeline.model(**features).logits[0]
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)  # another epsilon in the normalisation
        pipeline({"raw": wave, "sampling_rate": 16000})
    letters, spoken = pipeline.tokenizer, [task.symbols.index(letter) for letter in "TTO|O"]
    assert letters.pad_token_id == 0
    assert letters.convert_ids_to_tokens(list(range(4, len(task.symbols)))) == list(task.symbols[4:])
    assert letters.decode([0, *spoken[:3], 0, *spoken[3:], 0]) == "TO O"


def test_images_are_classified_by_the_pipeline(project, transformers):
    rows, logits, task, folder = export_trained(project, "digits")
    pipeline = transformers.pipeline("image-classification", folder)
    image = transformers.image_utils.PIL.Image
    for row, expected in zip(rows, logits, strict=True):
        found = pipeline(image.fromarray(row["image"].reshape(3, 8, 8).transpose(1, 2, 0).copy()))
        scores = {answer["label"]: answer["score"] for answer in found}
        wanted = dict(zip(task.symbols, expected.softmax(dim=0).tolist(), strict=True))
        assert scores == pytest.approx(wanted, abs=1e-5)


def test_an_image_of_another_size_is_cut_as_ours(project, transformers):
    *_, task, folder = export_trained(project, "digits")
    path = next(Path("data/raw/vision/test").rglob("*.png"))
    (row,) = task.setup.modality.rows(readers.read_image(path, 3), task.setup.config.table)
    ours = task.setup.modality.batch([row], None, task.setup.config)["inputs"]
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    theirs = processor(transformers.image_utils.PIL.Image.open(path), return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(theirs, ours, atol=1.01 / 255 / 0.4, rtol=0)  # at most one step of a pixel
    assert (theirs - ours).abs().mean() < 1e-3


def test_gray_images_go_to_the_class_itself(project, transformers):
    """Their pipeline turns every image into RGB, so that gray models are called with pixel values."""
    rows, logits, task, folder = export_trained(project, "digits", channels=1)
    model = transformers.AutoModelForImageClassification.from_pretrained(folder)
    assert model.config.num_channels == 1
    inputs = task.setup.modality.batch(rows, None, task.setup.config)["inputs"]
    torch.testing.assert_close(model(inputs).logits, torch.stack(logits), atol=1e-5, rtol=0)


def test_sentences_are_classified_by_the_pipeline(project, transformers):
    _, logits, task, folder = export_trained(project, "topics")
    pipeline = transformers.pipeline("text-classification", folder, top_k=None, truncation=True)
    with Path("data/raw/topics/test.tsv").open() as lines:
        sentences = [row["sentence"] for row in csv.DictReader(lines, delimiter="\t")]
    for sentence, expected in zip(sentences, logits, strict=True):
        scores = {answer["label"]: answer["score"] for answer in pipeline([sentence])[0]}
        wanted = dict(zip(task.symbols, expected.softmax(dim=0).tolist(), strict=True))
        assert scores == pytest.approx(wanted, abs=1e-5)
    ids = pipeline.tokenizer(SENTENCE, truncation=True)["input_ids"]
    assert ids == [0, *readers.encode_sentence(SENTENCE, 16, Path("data/vocabulary/text"))]


def drawn(project: Project, modality: str, kind: str, symbols: list[str], layers: str = "last") -> Supervised:
    """Write a fine-tuned run with random weights and return its model."""
    setup = tasks.training.read_setup(modality)
    torch.manual_seed(0)
    head = HeadConfig(kind, 0, 0.0, init_std=1.0, layers=layers)
    model = Supervised(setup.encoder(), head, setup.trunk.width, len(symbols)).eval()
    write_run(Path("run"), setup.describe() | {"head": kind, "symbols": symbols, "task": "mine"}, model.state_dict())
    return model


def test_numbers_come_out_of_the_pipeline(project, transformers):
    project.write("text")
    project.done("vocabulary", "text")
    model = drawn(project, "text", "score", ["score"])
    assert "Data2VecTextForSequenceClassification" in project.done("export", "run", "out")
    (found,) = transformers.pipeline("text-classification", "out")("the cat sat")
    ids = [0, *readers.encode_sentence("the cat sat", 16, Path("data/vocabulary/text"))]
    expected = model.logits({"inputs": torch.tensor([ids])})[0].item()
    assert found == {"label": "score", "score": pytest.approx(expected, abs=1e-5)}
    written = Path("out/README.md").read_text()
    assert "`Data2VecTextForSequenceClassification`, fine-tuned to give a number: " in written
    assert "| Answer | a number, learnt by squared error |" in written
    assert "classes" not in written


@pytest.mark.parametrize(("kind", "layers"), [("tags", "last"), ("mean", "last"), ("ctc", "weighted")])
def test_a_head_that_no_class_has_is_refused_in_a_sentence(project, kind, layers):
    drawn(project, "speech", kind, list("abcde"), layers)
    sentence = project.refused("export", "run", "out")
    assert sentence.endswith("Hugging Face has no speech class with the head of this run; export it as .onnx.")
    assert not Path("out").exists()


def pretrained(project: Project, modality: str) -> str:
    """Return a run folder as pretraining leaves it, with random weights, a head and a teacher."""
    if modality == "text":
        project.write("text")
        project.done("vocabulary", "text")
    project.set(modalities__vision__version=1, modalities__vision__model__local__positions=0.0)
    task = {value: key for key, value in MODALITIES.items()}[modality]
    setup = tasks.training.read_setup(modality)
    weights = {f"encoder.{name}": value for name, value in setup.encoder().state_dict().items()}
    extra = {"head.weight": torch.zeros(16, 16), "teacher.trunk.blocks.0.attention.qkv.bias": torch.zeros(48)}
    write_run(project.folder / "runs" / task, setup.describe() | {"seed": 0}, weights | extra)
    return f"runs/{task}"


def features_of(run: str, inputs: torch.Tensor) -> torch.Tensor:
    """Return the features of a run's encoder, class tokens in front."""
    config = read_config(Path(run))
    encoder = make_setup(config["modality"], config, run).encoder().eval()
    encoder.load_state_dict(read_weights(Path(run), "encoder."))
    with torch.no_grad():
        encoded = encoder({"inputs": inputs})
    return torch.cat([encoded.extra, encoded.x], dim=1)


def test_features_of_text_come_out_of_the_pipeline(project, transformers):
    run = pretrained(project, "text")
    project.done("export", run, "out")
    found = transformers.pipeline("feature-extraction", "out")("the cat sat", return_tensors=True)
    ids = [0, *readers.encode_sentence("the cat sat", 16, Path("data/vocabulary/text"))]
    torch.testing.assert_close(found, features_of(run, torch.tensor([ids])), atol=1e-5, rtol=0)


def test_features_of_images_come_out_of_the_pipeline(project, transformers):
    project.set(modalities__vision__table__channels=3)
    for key in ("mean", "std"):
        project.set(**{f"modalities__vision__model__augment__{key}": [0.4, 0.5, 0.6]})
    run = pretrained(project, "vision")
    project.done("export", run, "out")
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3)).astype(np.uint8)
    pipeline = transformers.pipeline("image-feature-extraction", "out")
    found = pipeline(transformers.image_utils.PIL.Image.fromarray(pixels), return_tensors=True)
    setup = tasks.training.read_setup("vision")
    row = {"image": pixels.transpose(2, 0, 1).ravel()}
    inputs = setup.modality.batch([row], None, setup.config)["inputs"]
    torch.testing.assert_close(found, features_of(run, inputs), atol=1e-5, rtol=0)


def test_features_of_speech_come_out_of_the_model(project, transformers):
    run = pretrained(project, "speech")
    project.done("export", run, "out")
    wave = np.random.default_rng(0).normal(0, 0.1, 8000).astype(np.float32)
    features = transformers.AutoFeatureExtractor.from_pretrained("out")(wave, sampling_rate=16000, return_tensors="pt")
    found = transformers.AutoModel.from_pretrained("out")(**features).last_hidden_state
    torch.testing.assert_close(found, features_of(run, features["input_values"]), atol=1e-5, rtol=0)


def test_the_same_run_gives_the_same_bytes_again(project):
    run = pretrained(project, "text")
    project.done("export", run, "out")
    before = contents(Path("out"))
    project.done("export", run, "out", "data/vocabulary/text")
    assert contents(Path("out")) == before
    assert set(before) == {
        "README.md",
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }


def test_default_positions_of_images_bring_their_own_class(project):
    run = pretrained(project, "vision")
    config = json.loads(Path(run, "config.json").read_text())
    config["model"]["local"]["positions"] = 0.25
    Path(run, "config.json").write_text(json.dumps(config))
    assert project.done("export", run, "out") == f"{run}: Data2Vec2Model in out\n"
    assert Path("out/modeling_data2vec2.py").exists()


def test_wrong_folders_are_one_sentence(project):
    run = pretrained(project, "text")
    Path("full").mkdir()
    Path("full/notes.txt").write_text("mine")
    assert "full holds something else" in project.refused("export", run, "full")
    assert "none is not a run folder" in project.refused("export", "none", "out")
    assert "full is not a vocabulary folder" in project.refused("export", run, "out", "full")
    project.set(modalities__text__table__vocabulary=34)
    project.done("vocabulary", "text")
    assert "has 34 symbols, but the run 40" in project.refused("export", run, "out")
    assert project.refused("export") == "usage: python -m stages.export RUN FOLDER [VOCABULARY]"
