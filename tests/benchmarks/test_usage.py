"""Benchmarks start with what there is today, and a slip on their command line is one sentence, as with stages."""

import importlib
import runpy
import sys

import pytest

from tests.tiny import ROOT

NAMES = sorted(path.stem for path in (ROOT / "benchmarks").glob("[a-z]*.py"))


@pytest.mark.parametrize("name", NAMES)
def test_it_starts(name):
    importlib.import_module(f"benchmarks.{name}")


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("decoding four", "usage: python -m benchmarks.decoding [UTTERANCES] [FRAMES]"),
        ("intervals 3", "usage: python -m benchmarks.intervals"),
        ("masked_words text 10 fast", "usage: python -m benchmarks.masked_words [NAME] [UPDATES] [RATE]"),
        ("real_corpora", "usage: python -m benchmarks.real_corpora CORPORA"),
        ("seeds", "usage: python -m benchmarks.seeds FOLDER [MORE ...]"),
        ("scaling 8 many", "usage: python -m benchmarks.scaling [GPUS ...]"),
        ("preparation sped", "error: there is no group 'sped'; choose one of speed, scaling, memory."),
        ("gradients", "error: there is nothing to sum; run torchrun --nproc-per-node=2 -m benchmarks.gradients."),
    ],
)
def test_a_slip_is_one_sentence(monkeypatch, command, sentence):
    name, *arguments = command.split()
    monkeypatch.setattr(sys, "argv", ["-m", *arguments])
    monkeypatch.delitem(sys.modules, f"benchmarks.{name}", raising=False)
    with pytest.raises(SystemExit) as ended:
        runpy.run_module(f"benchmarks.{name}", run_name="__main__", alter_sys=True)
    assert ended.value.code == sentence
