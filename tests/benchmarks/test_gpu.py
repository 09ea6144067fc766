"""The script for GPUs goes through without one, so that a machine that is lent for minutes is not spent on mistakes."""

import subprocess
import sys

from benchmarks import gpu
from benchmarks.steps import Job
from tests.tiny import ROOT


def test_small_models_go_through_all_of_it(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(gpu, "matrix_rate", lambda dtype: 1e12)
    monkeypatch.setattr(gpu, "WARM", 0)
    gpu.main(["speech", "--small", "--peak", "2"])
    said = capsys.readouterr().out
    assert "peak taken as 2\n" in said
    for step in ("transformers' classes, bfloat16 | 4", "ours, version 1, bfloat16 | 4", "version 2, bfloat16 | 1"):
        assert f"{step} |" in said
    assert "speech: version 1 is" in said
    assert "speech: 8 masks of a sample cost" in said
    assert said.count("| share | ms | calls | operation |") == 4


def test_the_tables_hold_what_was_measured(monkeypatch, capsys):
    made = {"ours, version 1, bfloat16": 2.0, "ours, version 2, bfloat16": 4.0, "transformers' classes, float32": 6.0}
    monkeypatch.setattr(
        gpu, "jobs", lambda name, small: [(2, lambda job=job: Job(job, lambda: None, 8e12)) for job in made]
    )
    monkeypatch.setattr(gpu, "median", lambda job, repeats: made[job.name])
    monkeypatch.setattr(gpu, "where_time_goes", lambda job: "")
    gpu.summarise("text", gpu.measure("text", peak=8.0, small=True))
    said = capsys.readouterr().out
    assert "| ours, version 1, bfloat16 | 2 | 2000.0 | 1 | 4 | 50.0% |" in said
    assert "version 1 is 3.00 × as fast as transformers' classes, float32" in said
    assert "8 masks of a sample cost 4.00 × less in version 2" in said


def test_it_starts_where_only_the_core_libraries_are():
    absent = ("dvc", "prefect", "polars", "soundfile", "transformers", "ruamel")
    code = f"import sys; sys.modules.update(dict.fromkeys({absent})); import benchmarks.gpu"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
