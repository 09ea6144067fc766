"""The library alone: its wheel is built, installed away from the project, and trains as the page shows."""

import json
import re
import subprocess
import sys
import zipfile

import d2v_core
from tests.tiny import ROOT, environment, small_params


def test_the_wheel_trains_and_loads_without_the_project(tmp_path):
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(tmp_path), str(ROOT / "deploy/library")]
    built = subprocess.run(build, capture_output=True, text=True, check=False, env=environment())
    assert built.returncode == 0, built.stdout + built.stderr
    assert len(list(tmp_path.glob("d2v_core-*.tar.gz"))) == 1
    with zipfile.ZipFile(next(tmp_path.glob(f"d2v_core-{d2v_core.__version__}-*.whl"))) as wheel:
        names = wheel.namelist()
        wheel.extractall(tmp_path / "installed")
    assert {"d2v_core/interop/remote/modeling_data2vec2.py", "d2v_core/py.typed"} <= set(names)
    assert {name.split("/")[0].split("-")[0] for name in names} == {"d2v_core"}

    block = small_params()["modalities"]["vision"] | {"version": 1}
    (tmp_path / "vision.json").write_text(json.dumps(block))
    example = re.search(r"```python\n(.*?)```", (ROOT / "docs/library.md").read_text(), re.DOTALL)[1]
    alone = 'import sys\nsys.modules.update(dict.fromkeys(["stages", "flows", "yaml", "dvc", "polars"]))\n'
    shown = "\nprint(list(features.shape), d2v_core.__file__)\n"
    ran = subprocess.run(
        [sys.executable, "-c", alone + example + shown],
        cwd=tmp_path,
        env=environment(PYTHONPATH=str(tmp_path / "installed")),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stderr
    *_, last = ran.stdout.splitlines()
    assert last == f"[16, 16] {tmp_path}/installed/d2v_core/__init__.py"
