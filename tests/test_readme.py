"""Every block that the README shows, run as it is printed on a project of seconds; only names of files are changed."""

import re
import shlex
import shutil
from pathlib import Path

import pytest
import yaml

from stages.params import merge
from tests.tiny import ROOT, Project, write_audio

CHECKPOINTS = ROOT.parent / "shared/golden/checkpoints"
TEXT = (ROOT / "README.md").read_text()
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL))
OWN = {"speech": "Use your own speech", "vision": "Use your own images", "text": "Use your own text"}
TESTED_ELSEWHERE = {"Two commands": "Makefile", "On a GPU pool": "tests/flows/test_plugin.py"}


def blocks(section: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", SECTIONS[section], re.DOTALL)


def commands(section: str) -> list[list[str]]:
    lines = [line for block in blocks(section, "sh") for line in block.splitlines()]
    return [shlex.split(command, comments=True) for line in lines for command in line.split("&&")]


def stage(project: Project, command: list[str]) -> str:
    """Run ``python -m stages.NAME ...``."""
    assert command[:2] == ["python", "-m"]
    return project.done(command[2].removeprefix("stages."), *command[3:])


def test_every_block_is_known_here():
    own = set(OWN.values()) | set(TESTED_ELSEWHERE)
    rest = {"Models of the papers", "On a GPU", "On several GPUs", "Load an official checkpoint"}
    assert {name for name, text in SECTIONS.items() if "```" in text} == own | rest | {"Get embeddings and answers"}


def test_make_has_the_targets():
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    shown = [command for name in TESTED_ELSEWHERE for command in commands(name) if command[0] == "make"]
    assert {command[1] for command in shown} == {"repro", "test", "ui"}
    assert {command[1] for command in shown} <= targets


def test_the_deployment_is_there_and_its_short_name_is_tested():
    (command,) = [command for command in commands("On a GPU pool") if command[0] == "prefect"]
    assert command[1:3] == ["deployment", "run"]
    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    assert command[3] in {deployment["name"] for deployment in deployments}
    assert command[3] in (ROOT / TESTED_ELSEWHERE["On a GPU pool"]).read_text()


@pytest.mark.parametrize("modality", OWN)
def test_a_corpus_of_ones_own_is_one_block(project, modality):
    corpus = project.write(modality)
    (block,) = blocks(OWN[modality], "yaml")
    changes = yaml.safe_load(block)
    changes["modalities"][modality]["corpus"]["raw"] = str(corpus)
    changes["modalities"][modality].pop("table", None)  # 224 pixels take longer than they show
    project.params = merge(project.params, changes)
    project.set()
    repro, describe = commands(OWN[modality])
    assert repro == ["dvc", "repro", f"pretrain@{modality}"]
    for name in ("vocabulary", "prepare", "pretrain"):
        project.done(name, modality)
    assert "train" in stage(project, describe)


def test_recipes_are_listed_and_applied_and_the_number_of_the_experiment_is_there(project):
    shutil.copytree(ROOT / "recipes", "recipes")
    shutil.copy(ROOT / "params.yaml", "params.yaml")
    listed, applied, experiment = commands("Models of the papers")
    assert "v2/vision-base" in stage(project, listed)
    assert "values changed" in stage(project, applied)
    assert yaml.safe_load(Path("params.yaml").read_text())["modalities"]["vision"]["table"]["size"] == 224
    assert experiment[:4] == ["dvc", "exp", "run", "-S"]
    values = yaml.safe_load((ROOT / "params.yaml").read_text())
    for key in experiment[4].split("=")[0].split("."):
        values = values[key]


def test_training_starts_on_one_device(project):
    project.prepare("speech")
    (command,) = commands("On a GPU")
    stage(project, command)
    assert Path("models/pretrain/speech/model.safetensors").exists()


def test_torchrun_starts_what_a_single_device_starts():
    (command,) = commands("On several GPUs")
    assert command == ["torchrun", "--nproc-per-node=8", *commands("On a GPU")[0][1:]]
    assert "torchrun" in (ROOT / "tests/stages/test_processes.py").read_text()


@pytest.mark.skipif(not CHECKPOINTS.is_dir(), reason="the golden numbers are not beside this checkout")
def test_an_official_checkpoint_comes_in_and_goes_out(project):
    shutil.copy(CHECKPOINTS / "v1_audio.pt", "audio_base_ls.pt")
    convert, export = commands("Load an official checkpoint")
    stage(project, convert)
    export[3] = convert[4]
    stage(project, export)
    assert Path(export[4], "config.json").exists()


def test_embeddings_and_answers(project):
    project.prepare("speech").done("pretrain", "speech")
    project.done("finetune", "transcribe", "pretrained")
    write_audio(Path("utterance.flac"), 1.0)
    (code,) = blocks("Get embeddings and answers", "python")
    names: dict = {}
    exec(code, names)
    assert names["features"].shape == (49, 16)
    (command,) = commands("Get embeddings and answers")
    assert "utterance.flac" in stage(project, command)


def test_links_lead_somewhere():
    links = re.findall(r"\]\((?!http)([^)#]+)", TEXT)
    for page in (ROOT / "docs").glob("*.md"):
        found = re.findall(r"\]\((?!http)([^)#]+)", page.read_text())
        links += [str(Path("docs") / link) for link in found]
    assert not {link for link in links if not (ROOT / link).exists()}
