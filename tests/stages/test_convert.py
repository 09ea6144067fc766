"""A checkpoint from elsewhere becomes a run that everything else uses as if it had been trained here."""

from pathlib import Path

import numpy as np
import pytest
import torch

import d2v_core
from d2v_core.interop import fairseq_speech, fairseq_vision
from d2v_core.interop.names import to_theirs
from d2v_core.model.supervised import head_layers
from d2v_core.run import read_config, read_weights
from d2v_core.setup import make_setup
from tests.tiny import Project, contents

CHECKPOINTS = Path(__file__).parents[3] / "shared" / "golden" / "checkpoints"
golden = pytest.mark.skipif(not CHECKPOINTS.is_dir(), reason="the golden numbers are not beside this checkout")


def foreign(project: Project, name: str, names: dict[str, str], folder: Path) -> tuple[Path, dict]:
    """Write a file with random weights for modality ``name`` of the project; return it and our names for them."""
    block = {key: value for key, value in project.params["modalities"][name].items() if key != "v2"}
    encoder = make_setup(name, block, name).encoder()
    settings = {"encoder_attention_heads": block["model"]["trunk"]["heads"]}
    weights = encoder.state_dict()
    torch.save({"model": to_theirs(weights, names), "cfg": {"model": settings}}, folder / "foreign.pt")
    return folder / "foreign.pt", weights


@golden
def test_golden_checkpoints_become_embedders(project):
    said = project.done("convert", str(CHECKPOINTS / "v1_audio.pt"), "models/speech")
    assert said.startswith("models/speech: speech, data2vec 1.0, pretrained, from v1_audio.pt\n")
    assert "4 blocks of width 32 with 4 heads; parameters: encoder 65,552, head 1,056, teacher 65,552" in said
    assert "taken as published: sample_rate 16000" in said
    wave = np.random.default_rng(0).normal(0, 0.1, 16000).astype(np.float32)
    (features,) = d2v_core.load("models/speech").embed([wave])
    assert features.shape == (49, 32)
    project.done("convert", str(CHECKPOINTS / "v1_text.pt"), "models/text")
    (features,) = d2v_core.load("models/text").embed([np.arange(4, 20)])
    assert features.shape == (17, 32)
    assert not project.unfinished


@golden
def test_the_golden_speech_checkpoint_is_fine_tuned_and_probed(project):
    project.prepare("speech")
    project.done("convert", str(CHECKPOINTS / "v1_audio.pt"), "models/pretrain/speech")
    project.done("finetune", "transcribe", "pretrained")
    project.done("probe", "transcribe")
    config = read_config(Path("models/finetune/transcribe/pretrained/seed-0"))
    assert config["model"]["trunk"]["width"] == 32


def test_fine_tuning_starts_from_a_converted_checkpoint(project):
    project.prepare("vision")
    project.set(
        modalities__vision__model__local__positions=0.0,
        tasks__digits__train__optimizer__rate=1e-30,
        tasks__digits__train__optimizer__weight_decay=0.0,
    )
    path, weights = foreign(project, "vision", fairseq_vision.NAMES, project.folder)
    project.done("convert", str(path), "models/pretrain/vision")
    project.done("finetune", "digits", "pretrained")
    tuned = read_weights(Path("models/finetune/digits/pretrained/seed-0"), "encoder.")
    assert tuned.keys() == {name for name in weights if not name.startswith("trunk.final_norm")}
    assert all((weights[name] - tuned[name]).abs().max() < 1e-12 for name in tuned)


def test_a_converted_fine_tuned_model_is_evaluated(project):
    project.prepare("speech")
    project.done("pretrain", "speech")
    for origin in ("pretrained", "scratch"):
        project.done("finetune", "transcribe", origin)
    folder = "models/finetune/transcribe/pretrained/seed-0"
    before = read_weights(Path(folder))
    theirs = to_theirs(
        {name.removeprefix("encoder."): tensor for name, tensor in before.items() if name.startswith("encoder.")},
        fairseq_speech.NAMES,
    )
    model = {f"w2v_encoder.w2v_model.{name}": tensor for name, tensor in theirs.items()}
    model |= {f"w2v_encoder.proj.{part}": before[f"head.{part}"] for part in ("weight", "bias")}
    heads = project.params["modalities"]["speech"]["model"]["trunk"]["heads"]
    symbols = read_config(Path(folder))["symbols"]
    torch.save(
        {
            "model": model,
            "cfg": {"model": {"encoder_attention_heads": heads}},
            "task_state": {"target_dictionary": Dictionary(symbols)},
        },
        "ctc.pt",
    )
    project.done("evaluate", "transcribe")
    answers = Path("plots/transcribe/answers.csv").read_bytes()
    said = project.done("convert", "ctc.pt", folder)
    assert f"fine-tuned, head 'ctc' of {len(symbols)} symbols" in said
    assert all(torch.equal(read_weights(Path(folder))[name], tensor) for name, tensor in before.items())
    project.done("evaluate", "transcribe")
    assert Path("plots/transcribe/answers.csv").read_bytes() == answers


class Dictionary:
    """Stands for fairseq's dictionary of letters."""

    def __init__(self, symbols: list[str]) -> None:
        self.symbols = symbols


def test_a_folder_that_is_no_run_is_never_replaced(project):
    path, _ = foreign(project, "vision", fairseq_vision.NAMES, project.folder)
    mine = project.folder / "mine"
    mine.mkdir()
    (mine / "notes.txt").write_text("keep")
    assert "mine is there and is not a run folder" in project.refused("convert", str(path), "mine")
    assert contents(mine) == {"notes.txt": b"keep"}
    theirs = project.folder / "huggingface"
    theirs.mkdir()
    (theirs / "config.json").write_text('{"model_type": "bert"}')
    (theirs / "model.safetensors").write_bytes(b"x")
    assert "not a run folder" in project.refused("convert", str(path), "huggingface")
    assert "not a run folder" in project.refused("convert", str(path), "params.yaml")
    project.done("convert", str(path), "run")
    project.done("convert", str(path), "run")
    (project.folder / "empty").mkdir()
    project.done("convert", str(path), "empty")
    assert contents(project.folder / "empty") == contents(project.folder / "run")


def test_what_cannot_be_read_is_one_sentence_and_leaves_nothing(project):
    assert "nowhere.pt is missing" in project.refused("convert", "nowhere.pt", "run")
    assert "is not a file that torch.save wrote" in project.refused("convert", "params.yaml", "run")
    (project.folder / "folder").mkdir()
    assert "folder/config.json is missing or describes none of" in project.refused("convert", "folder", "run")
    assert project.refused("convert") == "usage: python -m stages.convert SOURCE FOLDER"
    assert not (project.folder / "run").exists()


def test_what_has_no_place_is_listed_shortly(project):
    path, _ = foreign(project, "speech", fairseq_speech.NAMES, project.folder)
    content = torch.load(path)
    content["model"] |= {f"extra.{number:02}": torch.ones(1) for number in range(30)}
    content["model"] |= {"w2v_encoder.proj.weight": torch.ones(3, 16), "w2v_encoder.proj.bias": torch.ones(3)}
    torch.save(content, path)
    said = project.done("convert", str(path), "run")
    assert "fine-tuned, head 'ctc' of 3 symbols" in said
    line = next(line for line in said.splitlines() if "ignored" in line)
    assert line.startswith("  ignored: extra.00, extra.01,")
    assert line.endswith(" and 18 more")
    assert read_weights(Path("run"), "head.").keys() == head_layers("ctc", 16, 3).state_dict().keys()
