"""Stage ``export``: a run → a folder that Hugging Face's classes and pipelines load, or an ONNX file."""

import json
from pathlib import Path

import numpy as np
import torch

from d2v_core.data.files import publish
from d2v_core.errors import UserError
from d2v_core.interop.huggingface import CONFIG, write_folder
from d2v_core.run import read_config, read_weights
from d2v_core.setup import setup_of
from stages import runner, tokenizer
from stages.paths import VOCABULARIES
from stages.report import card
from stages.report.content import read_content

ALLOWED = 1e-4  # largest difference of an ONNX graph's numbers from PyTorch's


def main(run: str, folder: str, vocabulary: str = "") -> None:
    """Write the run at ``run`` to ``folder``, a file if it ends in .onnx; a folder of text needs its vocabulary.

    That is data/vocabulary/text by default.
    """
    config, target = read_config(Path(run)), Path(folder)
    if target.suffix == ".onnx" and not target.is_dir():
        export_onnx(Path(run), target)
        return
    setup_of(config, run)  # a run of another version is refused before anything is written
    weights = read_weights(Path(run))
    if target.is_file() or (target.exists() and any(target.iterdir()) and not exported(target)):
        raise UserError(f"{folder} holds something else; name a new folder.")
    pieces = None
    if "vocabulary" in config["table"]:
        source = Path(vocabulary) if vocabulary else VOCABULARIES / config["modality"]
        pieces = tokenizer_of(source, config["table"]["vocabulary"])
    about = card.markdown(card.read_card(Path(run), config, read_content()))
    written = write_folder(target, config, weights, pieces, about)
    print(f"{run}: {written} in {folder}")


def exported(folder: Path) -> bool:
    """Tell whether ``folder`` is one of Hugging Face's, which may be replaced."""
    try:
        return "model_type" in json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False


def tokenizer_of(vocabulary: Path, size: int) -> str:
    """Return the content of ``tokenizer.json`` for a vocabulary folder of ``size`` symbols."""
    check_vocabulary(vocabulary, size)
    if (vocabulary / tokenizer.FILE).exists():
        return (vocabulary / tokenizer.FILE).read_text(encoding="utf-8")
    return tokenizer.from_pieces(vocabulary / "pieces.model")


def check_vocabulary(vocabulary: Path, size: int) -> None:
    """Raise UserError unless ``vocabulary`` is a vocabulary folder of ``size`` symbols."""
    try:
        symbols = json.loads((vocabulary / "vocabulary.json").read_text(encoding="utf-8"))["symbols"]
    except (OSError, ValueError, KeyError):
        raise UserError(f"{vocabulary} is not a vocabulary folder; name the one of the run.") from None
    if len(symbols) != size:
        raise UserError(f"{vocabulary} has {len(symbols)} symbols, but the run {size}; name the vocabulary of the run.")


def export_onnx(run: Path, target: Path) -> None:
    """Write a run as an ONNX file, which is published only when its numbers are PyTorch's, where that can be told."""
    from d2v_core.interop import onnx

    with publish(target) as temporary:
        graph, setup = onnx.write_onnx(temporary, run)
        batches = [graph.inputs(onnx.example(setup, count, seed=1)) for count in (1, 2, 5)]
        difference = largest_difference(temporary, graph, batches)
        if difference is not None and not difference <= ALLOWED:
            raise UserError(f"{run}: ONNX differs from PyTorch by {difference:.2g}; report this run's config.json.")
    given, made = ", ".join(graph.names), "logits" if "symbols" in read_config(run) else "features"
    told = "not checked: onnxruntime is missing" if difference is None else f"within {difference:.1g} of PyTorch"
    print(f"{run}: {given} → {made} in {target}, {told}")


@torch.no_grad()
def largest_difference(path: Path, graph: torch.nn.Module, batches: list[dict[str, torch.Tensor]]) -> float | None:
    """Return how far the numbers of an ONNX file are from those of ``graph``; None where there is no onnxruntime."""
    try:
        from onnxruntime import InferenceSession
    except ImportError:
        return None
    session, found = InferenceSession(str(path), providers=["CPUExecutionProvider"]), []
    for batch in batches:
        numbers = session.run(None, {name: tensor.numpy() for name, tensor in batch.items()})[0]
        found.append(np.abs(numbers - graph(*batch.values())[0].numpy()).max())
    return float(max(found))


if __name__ == "__main__":
    runner.run(main)
