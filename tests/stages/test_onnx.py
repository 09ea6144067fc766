"""Runs as ONNX files: the numbers of PyTorch for any batch and length, from the tensors that the modality makes."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from d2v_core.errors import UserError
from d2v_core.interop import onnx
from d2v_core.modalities.text import PAD
from d2v_core.model.supervised import HeadConfig, Supervised
from d2v_core.run import write_run
from d2v_core.setup import Setup
from stages import export
from tests.d2v_core.blocks import MODALITIES, rows, small_block, small_setup
from tests.nightly import NIGHTLY

onnxruntime = pytest.importorskip("onnxruntime", reason="it comes with the extra `onnx`")
HEADS = {"speech": ("ctc", "tags", "mean"), "vision": ("mean", "class"), "text": ("first", "score")}
FAST = [("speech", 2, "ctc"), ("vision", 1, "class"), ("text", 2, None)]
CASES = [(name, version, head) for name in MODALITIES for version in (1, 2) for head in (None, *HEADS[name])]


def write(name: str, version: int, head: str | None) -> Setup:
    """Write a run of one block and few convolutions, fine-tuned when there is a ``head``, and return its setup."""
    block = small_block(name, version)
    block["model"]["trunk"]["depth"] = 1
    if name == "speech":
        block["model"]["local"] |= {"kernels": [10, 3], "strides": [5, 2], "position_layers": 1}
    setup, _ = small_setup(name, block)
    setup = replace(setup, trunk=replace(setup.trunk, final_norm=setup.trunk.final_norm and head != "mean"))
    torch.manual_seed(0)
    encoder, config = setup.encoder(), setup.describe()
    if head is None:
        write_run(Path("run"), config, {f"encoder.{key}": value for key, value in encoder.state_dict().items()})
    else:
        model = Supervised(encoder, HeadConfig(head, 0, 0.0, init_std=1.0), setup.trunk.width, classes=5)
        write_run(Path("run"), config | {"head": head, "symbols": list("abcde")}, model.state_dict())
    return setup


def put_behind(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """Return an input with more padding: noise behind waves, padding ids behind text."""
    if name == "lengths":
        return tensor
    behind = torch.randn(len(tensor), 3000) if tensor.is_floating_point() else torch.full((len(tensor), 5), PAD)
    return torch.cat([tensor, behind], dim=1)


@pytest.mark.parametrize(("name", "version", "head"), CASES if NIGHTLY else FAST)
def test_a_graph_gives_the_numbers_of_pytorch(project, name, version, head):
    setup = write(name, version, head)
    said = project.done("export", "run", "out.onnx")
    graph, _ = onnx.load_graph(Path("run"))
    assert said.startswith(f"run: {', '.join(graph.names)} → {'logits' if head else 'features'} in out.onnx")
    session = onnxruntime.InferenceSession("out.onnx")
    names = [output.name for output in session.get_outputs()]
    for count in (1, 2, 7):
        batch = graph.inputs(setup.modality.batch(rows(name, count), None, setup.config))
        with torch.no_grad():
            expected = graph(*batch.values())
        found = session.run(None, {key: tensor.numpy() for key, tensor in batch.items()})
        real = np.ones(expected[0].shape[:2], bool) if len(expected) == 1 else ~expected[1].numpy()
        np.testing.assert_allclose(found[0][real], expected[0].numpy()[real], atol=1e-4, rtol=0)
        if len(found) == 2:
            np.testing.assert_array_equal(found[1], ~real)
    if "padding" in names:
        longer = {key: put_behind(key, tensor) for key, tensor in batch.items()}
        again = session.run(None, {key: tensor.numpy() for key, tensor in longer.items()})
        np.testing.assert_allclose(again[0][~again[1]], found[0][real], atol=1e-4, rtol=0)
    told = json.loads(session.get_modelmeta().custom_metadata_map[onnx.METADATA])
    assert (told["modality"], told.get("symbols")) == (name, list("abcde") if head else None)


def test_a_file_that_is_not_equal_is_not_published(project, monkeypatch):
    write("vision", 2, None)

    def written(path: Path, folder: Path) -> tuple[torch.nn.Module, Setup]:
        path.write_bytes(b"a graph")
        return onnx.load_graph(folder)

    monkeypatch.setattr(onnx, "write_onnx", written)
    monkeypatch.setattr(export, "largest_difference", lambda *_: 2e-4)
    with pytest.raises(UserError, match=r"^run: ONNX differs from PyTorch by 0.0002; "):
        export.export_onnx(Path("run"), Path("out.onnx"))
    assert not Path("out.onnx").exists()
    monkeypatch.setattr(export, "largest_difference", lambda *_: None)
    export.export_onnx(Path("run"), Path("out.onnx"))
    assert Path("out.onnx").read_bytes() == b"a graph"


def test_weights_that_no_file_can_hold_are_refused(project, monkeypatch):
    write("vision", 2, None)
    monkeypatch.setattr(onnx, "LARGEST", 1000)
    with pytest.raises(UserError, match="an ONNX file holds 2"):
        onnx.write_onnx(Path("out.onnx"), Path("run"))
