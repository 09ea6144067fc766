"""Logits → what a fine-tuned model says: a transcript, classes with their probabilities, or a number."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from d2v_core.errors import UserError
from d2v_core.evaluation import ctc
from d2v_core.evaluation.beam import BeamConfig
from d2v_core.evaluation.fusion import FusionWeights
from d2v_core.predicting import Predictor
from stages import language_model

Answer = dict[str, Any]
LIKELY = 0.5  # probability from which one of several labels is given


def read_answer(predictor: Predictor, transcribe: Callable[[Tensor], str], values: Tensor, top: int) -> Answer:
    """Return the answer in one input's logits [C], or [T, C] for CTC, with the ``top`` best classes when asked for."""
    if predictor.kind == "ctc":
        return {"transcript": transcribe(values)}
    if predictor.kind == "score":
        return {"score": float(f"{float(values):.6g}")}
    several = predictor.kind == "tags"
    probabilities = values.sigmoid() if several else values.softmax(dim=0)
    order = values.argsort(descending=True, stable=True).tolist()
    ranked = [{"label": predictor.symbols[n], "probability": round(float(probabilities[n]), 6)} for n in order]
    if several:
        return {"labels": ranked[:top] if top else [each for each in ranked if each["probability"] >= LIKELY]}
    return ranked[0] | ({"top": ranked[:top]} if top else {})


def greedy(predictor: Predictor) -> Callable[[Tensor], str]:
    """Return what makes a transcript of logits [T, C]: the best letter of every frame."""
    return lambda values: ctc.greedy(values, predictor.symbols)


def beam_search(
    predictor: Predictor, model: Path, unit: str, weights: FusionWeights, beam: BeamConfig
) -> Callable[[Tensor], str]:
    """Return what makes a transcript of logits [T, C]: the search that the stage ``decode`` does, with any model.

    ``model`` is an ARPA file or a folder of the stage ``language_model``, which knows its unit.
    """
    from stages import decoding

    if model.is_dir():
        unit = unit_of(model)
        model = model / language_model.FILE
    search = decoding.Search(model, unit, predictor.symbols, weights, beam)
    decoding.make_fusion(search)  # a wrong model is told before any input is read
    return lambda values: decoding.decode_part((search, [values.numpy()]))[0]


def tuned_search(predictor: Predictor, name: str) -> Callable[[Tensor], str]:
    """Return the search of the block ``decoding.<name>`` with the weights that were tuned for the run's origin."""
    from stages import decode, decoding

    config, _ = decoding.read_decoding(name)
    weights = decode.read_weights(name, predictor.run.get("origin", ""))
    return beam_search(predictor, Path(config.language_model), config.unit, weights, config.beam)


def unit_of(folder: Path) -> str:
    """Return what the model in a folder of the stage ``language_model`` is made of: words or letters."""
    try:
        return json.loads((folder / "config.json").read_text(encoding="utf-8"))["unit"]
    except (OSError, ValueError, KeyError):
        raise UserError(
            f"{folder} holds no language model; run the stage language_model or name an ARPA file."
        ) from None


def choose_device(name: str) -> torch.device:
    """Return the device ``name``, or for ``auto`` the GPU where there is one; raise UserError when it is not there."""
    try:
        device = torch.device(name if name != "auto" else "cuda" if torch.cuda.is_available() else "cpu")
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError):
        raise UserError(f"--device {name} is not on this machine; leave it out or use cpu.") from None
    return device


def in_words(answer: Answer) -> str:
    """Return an answer as a person reads it."""
    if "transcript" in answer:
        return answer["transcript"]
    if "score" in answer:
        return f"{answer['score']:.6g}"
    ranked = answer.get("top") or answer.get("labels", [answer])
    return ", ".join(f"{each['label']} {each['probability']:.3f}" for each in ranked)
