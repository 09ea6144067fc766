"""What the stages ``tune_decoding`` and ``decode`` share: the block of parameters, logits, and workers that search."""

import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import Literal

import numpy as np

from d2v_core.config import require
from d2v_core.errors import UserError
from d2v_core.evaluation.arpa import read_arpa
from d2v_core.evaluation.beam import BeamConfig, beam_search
from d2v_core.evaluation.fusion import Fusion, FusionWeights, LetterFusion, WordFusion
from d2v_core.evaluation.ngram import BEGIN, END, UNKNOWN, NGram
from d2v_core.finetuning import predict
from stages import language_model, params, tasks, training
from stages.progress import track

SECONDS_ALONE = 3.0
UTTERANCES_AT_ONCE = 16


@dataclass(frozen=True)
class TuneConfig:
    """The weights to try, in every combination; ``utterances`` of the valid split are used (0: all)."""

    lm_weights: tuple[float, ...]
    word_scores: tuple[float, ...]
    silence_weights: tuple[float, ...] = (0.0,)
    utterances: int = 0

    def __post_init__(self) -> None:
        for name in ("lm_weights", "word_scores", "silence_weights"):
            require(len(getattr(self, name)) > 0, f"{name} must hold at least one number.")
        require(self.utterances >= 0, f"utterances must not be negative, but is {self.utterances}.")


@dataclass(frozen=True)
class DecodingConfig:
    """The block ``decoding.<name>``.

    ``language_model`` is a folder of the stage ``language_model`` or an ARPA file, of words or of letters (``unit``).
    With words, its words are the lexicon; ``unknown_score`` is for others, null refuses them. The ``worst`` utterances
    are listed; intervals are from ``resamples``.
    """

    task: str
    language_model: str
    unit: Literal["words", "letters"]
    unknown_score: float | None
    beam: BeamConfig
    tune: TuneConfig
    worst: int = 20
    resamples: int = 1000

    def __post_init__(self) -> None:
        require(self.worst >= 0, f"worst must not be negative, but is {self.worst}.")
        require(self.resamples > 0, f"resamples must be positive, not {self.resamples}.")


@dataclass(frozen=True)
class Search:
    """All that a worker needs to decode."""

    model: Path
    unit: str
    letters: tuple[str, ...]
    weights: FusionWeights
    beam: BeamConfig


def read_decoding(name: str) -> tuple[DecodingConfig, tasks.Task]:
    """Return the block ``decoding.<name>`` and its task; raise UserError when that does not transcribe."""
    config = params.read(DecodingConfig, f"decoding.{name}")
    task = tasks.read_task(config.task)
    if not task.transcribes:
        raise UserError(f"{params.PATH}: decoding.{name}.task must be one whose head is ctc; {config.task!r} is not.")
    return config, task


def model_path(config: DecodingConfig) -> Path:
    """Return the ARPA file of the language model."""
    path = Path(config.language_model)
    return path / language_model.FILE if path.is_dir() else path


def make_search(config: DecodingConfig, letters: Sequence[str], weights: FusionWeights) -> Search:
    """Return what a worker needs to decode with these weights."""
    return Search(model_path(config), config.unit, tuple(letters), weights, config.beam)


def all_logits(task: tasks.Task, origin: str, seed: int, split: str, count: int = 0) -> tuple[list[np.ndarray], tuple]:
    """Return a fine-tuned model's logits [T, C] float32 on the first ``count`` rows (0: all), and its letters."""
    tuned, model = tasks.load_finetuned(task, origin, seed)
    table = task.table(split)
    found = []
    for values in predict(tuned.setup, model, table, training.pick_device()):
        found.append(values.numpy())
        if len(found) == count:
            break
    return found, tuned.symbols


@lru_cache(maxsize=1)
def load_model(path: Path) -> NGram:
    """Return the language model in an ARPA file, read once in a process."""
    return read_arpa(path)


@lru_cache(maxsize=1)
def make_fusion(search: Search) -> Fusion:
    """Return the fusion of a search; a process keeps the last one."""
    model = load_model(search.model)
    if search.unit == "letters":
        return LetterFusion(search.letters, search.weights, model)
    words = [word for word in model.words if word not in (BEGIN, END, UNKNOWN)]
    return WordFusion(search.letters, words, search.weights, model)


def decode_part(job: tuple[Search, Sequence[np.ndarray]]) -> list[str]:
    """Return the best transcript of each of some logits [T, C]."""
    search, logits = job
    fusion = make_fusion(search)
    return [beam_search(values, search.letters, fusion, search.beam)[0].text for values in logits]


def decode_all(searches: Sequence[Search], logits: Sequence[np.ndarray], label: str) -> list[list[str]]:
    """Return the transcripts of all ``logits`` by each search, the same for any number of workers."""
    starts = range(0, len(logits), UTTERANCES_AT_ONCE)
    jobs = [(search, logits[start : start + UTTERANCES_AT_ONCE]) for search in searches for start in starts]
    try:
        parts = list(track(results(jobs), label, len(jobs), unit="parts"))
    except BrokenProcessPool:
        raise UserError(f"a process of {label} was ended; lower beam.size if memory is short.") from None
    answers = [answer for part in parts for answer in part]
    return [answers[start : start + len(logits)] for start in range(0, len(answers), len(logits))]


def results(jobs: Sequence[tuple[Search, Sequence[np.ndarray]]]) -> Iterator[list[str]]:
    """Decode in this process, and what is left after ``SECONDS_ALONE`` in several: they take long to start."""
    workers, began = min(len(jobs), os.cpu_count() or 1), time.monotonic()
    for number, job in enumerate(jobs):
        if workers > 1 and time.monotonic() - began > SECONDS_ALONE:
            with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
                yield from pool.map(decode_part, jobs[number:])
            return
        yield decode_part(job)
