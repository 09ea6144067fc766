"""What goes wrong in a stranger's first hour, done for real: one sentence that says what to do, and no traceback.

Faults in params.yaml, corpora and cut-off files are in stages/test_bad_input.py, SIGTERM in
stages/test_training_stages.py, a full disk in flows/test_full_disk.py.
"""

import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import stages
from d2v_core.config import build
from d2v_core.model.supervised import HeadConfig, Supervised
from d2v_core.pretraining import PretrainConfig
from d2v_core.run import write_run
from d2v_core.training import checkpoint
from flows import ui
from stages import params, training
from tests.tiny import ROOT, Project, environment, write_image

RUN, TUNED = "models/pretrain/vision", "models/finetune/digits/pretrained/seed-0"
USES = ["finetune digits pretrained", "probe digits", f"export {RUN} out", f"export {RUN} out.onnx"]
TUNED_USES = ["evaluate digits", f"predict --run {TUNED} 0.png"]
OTHER = "is not of this version of d2v"


def changed(**changes: object) -> Callable[[Project], None]:
    return lambda project: project.set(**changes)


def absent(package: str) -> Callable[[Project], None]:
    return lambda project: project.monkeypatch.setitem(sys.modules, package, None)


def config(run: str, **trunk: object) -> Callable[[Project], None]:
    def change(project: Project) -> None:
        content = project.json(f"{run}/config.json")
        content["model"]["trunk"] |= trunk
        (project.folder / run / "config.json").write_text(json.dumps(content))

    return change


def written(path: str, text: str) -> Callable[[Project], None]:
    return lambda project: (project.folder / path).write_text(text)


def pickled(project: Project) -> None:
    torch.save({"weight": torch.zeros(1)}, project.folder / RUN / "model.safetensors")


def without_a_weight(project: Project) -> None:
    path = project.folder / RUN / "model.safetensors"
    weights = load_file(path)
    del weights["encoder.trunk.input_norm.bias"]
    save_file(weights, path)


def a_checkpoint_that_is_gone(project: Project) -> None:
    setup, where = training.read_setup("vision"), "modalities.vision.pretrain"
    learning = build(PretrainConfig, params.modality("vision")["pretrain"], where)
    identity = training.identity_of(setup, learning, params.get("seed"), Path("data/tables/vision"))
    state = training.state_folder("pretrain-vision", identity)
    state.mkdir(parents=True)
    (state / checkpoint.LAST).write_text('"update-2.pt"')


def spoken_at_another_rate(project: Project) -> None:
    project.prepare("speech")
    project.set(modalities__speech__table__sample_rate=8000)


def on_dask(project: Project) -> None:
    absent("distributed")(project)
    project.set(executor="dask://127.0.0.1:1")


CASES = {
    "the sample rate was changed after preparing": (
        spoken_at_another_rate,
        ["pretrain speech", "finetune transcribe scratch", "replay speech 0"],
        "data/tables/speech was prepared with sample_rate 16000, not 8000; run its prepare stage again.",
    ),
    "the size was changed after preparing": (
        changed(modalities__vision__table__size=16),
        ["pretrain vision", "finetune digits pretrained", "evaluate digits"],
        "data/tables/vision was prepared with size 8, not 16; run its prepare stage again.",
    ),
    "a run with a key of another version": (
        config(RUN, rotary=1),
        USES,
        f"{RUN}/config.json {OTHER} (model.trunk.rotary",
    ),
    "a fine-tuned run with such a key": (config(TUNED, rotary=1), TUNED_USES, f"{TUNED}/config.json {OTHER}"),
    "a Hugging Face folder as a run": (
        written(f"{RUN}/config.json", '{"model_type": "data2vec-vision"}'),
        USES,
        f"{RUN}/config.json {OTHER} (modalities.None is not a known key); use the version that made it",
    ),
    "a list as a run": (
        written(f"{RUN}/config.json", "[]"),
        USES,
        f"{RUN}/config.json is damaged (it holds no object); train the run again.",
    ),
    "weights of another depth": (
        config(RUN, depth=3),
        USES[:2] + USES[3:],
        f"{RUN}/model.safetensors does not fit its config.json, as 'trunk.blocks.2.",
    ),
    "fine-tuned weights of another width": (
        config(TUNED, width=32),
        TUNED_USES,
        f"{TUNED}/model.safetensors does not fit its config.json, as 'encoder.local.",
    ),
    "a weight is missing": (
        without_a_weight,
        USES[:2],
        f"{RUN}/model.safetensors does not fit its config.json, as 'trunk.input_norm.bias' shows; use the version",
    ),
    "a pickle under the name of weights": (pickled, USES, f"{RUN}/model.safetensors cannot be read ("),
    "a file as a run": (
        changed(),
        ["predict --run params.yaml 0.png", "export params.yaml out"],
        "params.yaml is not a run folder (config.json is missing); train it first.",
    ),
    "a checkpoint that is gone": (
        a_checkpoint_that_is_gone,
        ["pretrain vision"],
        " holds a checkpoint that cannot be gone on from (FileNotFoundError): remove the folder to train",
    ),
    "a GPU that is not there": (
        changed(),
        [f"predict --run {TUNED} --device cuda:99 0.png", f"predict --run {TUNED} --device cdua 0.png"],
        "--device c",
    ),
    "no onnxscript": (
        absent("onnxscript"),
        [f"export {RUN} out.onnx"],
        "ONNX files are written by onnxscript, which is not installed; run pip install onnxscript.",
    ),
    "no espeak-ng": (
        absent("espeakng_loader"),
        ["sample speech"],
        "the sample of speech needs espeakng-loader; run: pip install espeakng-loader",
    ),
    "no distributed": (
        on_dask,
        ["prepare vision"],
        "executor: dask:// needs the package distributed; install it with pip install 'd2v[dask]'.",
    ),
    "an export over a file": (changed(), [f"export {RUN} 0.png"], "0.png holds something else; name a new folder."),
    "a conversion over a folder": (
        changed(),
        [f"convert {RUN} data"],
        "data is there and is not a run folder; give the name of a new one.",
    ),
    "a recipe elsewhere": (
        changed(),
        ["recipes v2/vision-base"],
        "recipes/v2/vision-base.yaml is not there; run from the project's folder.",
    ),
    "no git repository": (
        changed(),
        ["report --compare HEAD"],
        "HEAD is neither a folder nor a revision: ",
    ),
    "conflict markers": (
        written("params.yaml", "<<<<<<< HEAD\nseed: 0\n=======\nseed: 1\n>>>>>>> other\n"),
        ["prepare vision"],
        "params.yaml is not valid YAML: mapping values are not allowed",
    ),
}


@pytest.fixture(scope="module")
def beginning(tmp_path_factory) -> Path:
    """A project with a table of images, an encoder and a classifier with random weights, and one image."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        folder = tmp_path_factory.mktemp("beginning")
        monkeypatch.chdir(folder)
        Project(folder, monkeypatch).prepare("vision")
        write_image(Path("0.png"), "red")
        setup, symbols = training.read_setup("vision"), ["blue", "green", "red"]
        model = Supervised(setup.encoder(), HeadConfig("mean", 0, 0.0), setup.trunk.width, len(symbols))
        encoder = {f"encoder.{name}": value for name, value in model.encoder.state_dict().items()}
        write_run(Path(RUN), setup.describe() | {"updates": 1}, encoder)
        head = {"head": "mean", "symbols": symbols, "task": "digits", "origin": "pretrained", "seed": 0}
        write_run(Path(TUNED), setup.describe() | head, model.state_dict())
    return folder


@pytest.mark.parametrize("case", CASES)
def test_a_fault_is_one_sentence(project, beginning, case):
    shutil.copytree(beginning, project.folder, dirs_exist_ok=True)
    spoil, commands, sentence = CASES[case]
    spoil(project)
    for command in commands:
        stage, *arguments = command.split()
        said = project.refused(stage, *arguments)
        assert said.startswith("error: ")
        assert sentence in said
    assert not project.unfinished


def test_arguments_that_may_be_left_out_are_in_brackets(project):
    assert project.refused("export") == "usage: python -m stages.export RUN FOLDER [VOCABULARY]"


@pytest.mark.parametrize(
    ("host", "port", "sentence"),
    [
        ("127.0.0.1", None, "is taken; choose another one with --port."),
        ("127.0.0.1", 65535, "127.0.0.1 cannot be listened on at 65536 ("),
        ("192.0.2.1", 4200, "192.0.2.1 is open to others; set PREFECT_SERVER_API_AUTH_STRING=user:password first."),
        ("nowhere", 4200, "'nowhere' is not an address; give one as --host"),
    ],
)
def test_an_address_that_the_ui_cannot_have(project, host, port, sentence):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(SystemExit, match=r"^error: ") as refused:
            ui.refuse(host, port or other.getsockname()[1])
    assert sentence in str(refused.value)


def test_the_ui_in_another_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=r"error: params.yaml is missing; run from the project's folder."):
        ui.refuse("127.0.0.1", 4200)


def test_a_flow_is_imported_where_params_yaml_has_conflict_markers(tmp_path, monkeypatch):
    from flows.choices import blocks

    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text("<<<<<<< HEAD\nseed: 0\n")
    assert blocks("modalities") == []


def test_another_python_is_told_from_a_fault(project):
    command = [sys.executable, "-S", "-m", "stages.pretrain", "vision"]
    ended = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: No module named '")
    assert ended.stderr.endswith("activate the environment of make (. .venv/bin/activate), or install it.\n")
    assert len(ended.stderr.splitlines()) == 1


def test_ctrl_c_saves_a_training(project, beginning):
    shutil.copytree(beginning, project.folder, dirs_exist_ok=True)
    loop = {"updates": 40000, "accumulate": 1, "log_every": 1, "save_every": 40000}
    project.set(modalities__vision__pretrain__loop=loop)
    process = project.start("pretrain", "vision")
    while not Path("state/speed/pretrain-vision.csv").exists():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert re.fullmatch(r"stopped after update \d+ of 40000; run it again to go on\.\n", said)
    assert list(Path("state/checkpoints").glob("pretrain-vision/*/LAST"))


def test_ctrl_c_elsewhere_is_one_line(capsys):
    stages.explain(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert capsys.readouterr().err == "stopped by Ctrl-C; run it again.\n"


def test_a_missing_shared_library_is_no_damaged_corpus(project):
    project.write("speech")
    project.done("vocabulary", "speech")
    Path("soundfile.py").write_text("raise OSError('sndfile library not found')\n")
    Path("soundfile-0.dist-info").mkdir()
    Path("soundfile-0.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: soundfile\nVersion: 0\n")
    project.monkeypatch.setenv("PYTHONPATH", str(project.folder))
    assert project.process("prepare", "speech").sentence.startswith(
        "error: soundfile cannot be used (sndfile library not found); activate"
    )


@pytest.mark.parametrize("version", [(3, 10), (3, 11)])
def test_make_asks_for_a_newer_python(tmp_path, version):
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    python = tmp_path / "python"
    python.write_text(
        f'#!/bin/sh\n[ "$1" = -c ] || exit 7\n'
        f'exec {sys.executable} -c "import sys; sys.version_info = {version}; exec(sys.argv[1])" "$2"\n'
    )
    python.chmod(0o755)
    ended = subprocess.run(
        ["make", f"PYTHON={python}", "repro"], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
    )
    old = version < (3, 11)
    assert ended.returncode != 0
    assert ("error: Python 3.11 or newer is needed; run make PYTHON=python3.11." in ended.stderr) == old


def test_a_checkpoint_of_another_torch_goes_on_and_one_of_another_model_does_not(tmp_path):
    def fresh(width: int = 2) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
        model = torch.nn.Linear(3, width)
        optimizer = torch.optim.AdamW(model.parameters())
        model(torch.ones(1, 3)).sum().backward()
        optimizer.step()
        return model, optimizer

    checkpoint.save(tmp_path, *fresh(), {"update": 2})
    path = tmp_path / "update-2.pt"
    state = torch.load(path)
    group = state["optimizer"]["param_groups"][0]
    group["of_a_newer_version"] = 1
    for name in ("fused", "foreach", "capturable", "differentiable"):  # not in an older one
        del group[name]
    torch.save(state, path)
    assert checkpoint.restore(tmp_path, *fresh()) == {"update": 2}
    with pytest.raises(checkpoint.UserError, match=r"holds a checkpoint that cannot be gone on from \(RuntimeError\)"):
        checkpoint.restore(tmp_path, *fresh(width=5))
