"""Runs as ONNX graphs, for programs without PyTorch: what a modality's ``batch`` makes goes in, logits or features out.

torch.onnx needs the package onnxscript, and nothing here needs the graph's runtime. Batches and lengths are free; the
size of an image is not. Padding is found by the graph: from ``lengths`` [B] in samples for audio, from the padding id
for text.

B samples · T tokens · D width · C classes or letters
"""

import json
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from d2v_core.embedding import Embedder
from d2v_core.errors import UserError
from d2v_core.model.encoder import Encoder
from d2v_core.model.supervised import Supervised
from d2v_core.predicting import Predictor
from d2v_core.run import read_config
from d2v_core.setup import Setup

LARGEST = 2**31  # bytes of one file, by its format
METADATA = "d2v"  # where the file holds the run's configuration, as JSON
ROWS = 3  # of the batch with which a graph is recorded; 0 and 1 would be taken for fixed


class Graph(nn.Module):
    """A model as a function of the tensors ``names``, which takes every batch for a padded one."""

    def __init__(self, model: Encoder | Supervised, names: tuple[str, ...]) -> None:
        super().__init__()
        self.model, self.names = model, names

    def inputs(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the tensors of a modality's ``batch`` that the graph takes; an unpadded one has no lengths."""
        whole = torch.full((len(batch["inputs"]),), batch["inputs"].shape[1])
        return {name: batch.get(name, whole) for name in self.names}

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Return features [B, T, D] or logits, [B, C] or [B, T, C], and where tokens are padded [B, T] bool."""
        inputs = dict(zip(self.names, tensors, strict=True))
        if isinstance(self.model, Encoder):
            encoded = self.model(inputs)
            result, padding = encoded.x, encoded.padding
        else:
            result, padding = self.model.logits(inputs)
        return (result,) if padding is None or result.ndim == 2 else (result, padding)


def load_graph(folder: Path) -> tuple[Graph, Setup]:
    """Return what is exported of a run: encoder and head of a fine-tuned one, the encoder of any other."""
    if "symbols" in read_config(folder):
        predictor = Predictor(folder)
        model: Encoder | Supervised = predictor.model
        setup = predictor.setup
    else:
        embedder = Embedder(folder)
        model, setup = embedder.encoder, embedder.setup
    names = ("inputs", "lengths") if hasattr(setup.config.table, "sample_rate") else ("inputs",)
    return Graph(model, names).eval(), setup


def example(setup: Setup, count: int = ROWS, seed: int = 0) -> dict[str, Tensor]:
    """Return a batch of ``count`` random rows of a modality's table, of different lengths where it has lengths.

    Raises UserError for another modality.
    """
    table, rng = setup.config.table, np.random.default_rng([seed, count])
    shares = rng.uniform(0.5, 1, count)
    if hasattr(table, "sample_rate"):
        rows = [{"audio": rng.integers(-9999, 9999, int(share * table.sample_rate), np.int16)} for share in shares]
    elif hasattr(table, "vocabulary"):
        rows = [{"tokens": rng.integers(4, table.vocabulary, max(2, int(share * table.tokens)))} for share in shares]
    elif not hasattr(table, "channels"):
        raise UserError(f"ONNX graphs are made of runs of audio, images and text, not of {setup.name}.")
    else:
        rows = [{"image": rng.integers(0, 256, table.channels * table.stored**2, np.uint8)} for _ in shares]
    return setup.modality.batch(rows, None, setup.config)


def write_onnx(path: Path, folder: Path) -> tuple[Graph, Setup]:
    """Write the run at ``folder`` as one ONNX file with its configuration; return the graph in PyTorch and its setup.

    Raises UserError when onnxscript is missing, or the weights are more than one file can hold.
    """
    if find_spec("onnxscript") is None:
        raise UserError("ONNX files are written by onnxscript, which is not installed; run pip install onnxscript.")
    graph, setup = load_graph(folder)
    size = sum(tensor.numel() * tensor.element_size() for tensor in graph.state_dict().values())
    if size >= LARGEST:
        raise UserError(
            f"{folder} holds {size / 2**30:.1f} GiB of weights; an ONNX file holds 2, export a smaller run."
        )
    program = record(graph, graph.inputs(example(setup)))
    program.model.metadata_props[METADATA] = json.dumps(read_config(folder), sort_keys=True)
    program.save(str(path), external_data=False)
    return graph, setup


def record(graph: Graph, batch: Mapping[str, Tensor]) -> torch.onnx.ONNXProgram:
    """Return the graph in which batch and length are free; attention is spelled out, as no fused form is portable."""
    free = torch.export.Dim.DYNAMIC
    shapes = tuple({0: free, 1: free} if tensor.ndim == 2 else {0: free} for tensor in batch.values())
    result = "features" if isinstance(graph.model, Encoder) else "logits"
    with sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        recorded = torch.export.export(graph, tuple(batch.values()), dynamic_shapes=(shapes,))
        names = [result, "padding"][: len(recorded.graph_signature.user_outputs)]
        program = torch.onnx.export(
            recorded, input_names=list(batch), output_names=names, external_data=False, verbose=False
        )
    assert program is not None
    return program
