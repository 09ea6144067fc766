"""The house rules, checked on the source itself: who imports whom, how long things are, what is written down."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("d2v_core", "stages", "flows")
SOURCES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py") if path.parent.name != "remote")
CORE_LIBRARIES = {"torch", "torchvision", "numpy", "pyarrow", "safetensors", "d2v_core"}


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def standard(name: str) -> bool:
    return name.partition(".")[0] in sys.stdlib_module_names


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_one_way(path):
    room = path.relative_to(ROOT).parts[0]
    above = set(ROOMS[ROOMS.index(room) + 1 :])
    names = imports(path)
    assert not {name for name in names if name.split(".")[0] in above}, "imports point up"
    if room == "d2v_core":
        foreign = {name for name in names if not standard(name) and name.split(".")[0] not in CORE_LIBRARIES}
        assert not foreign, f"the core may not import {foreign}"
    if room == "flows":
        known = {name for name in names if name.startswith(("stages.params", "stages.recipes"))}
        assert {name for name in names if name.startswith(("d2v_core", "stages."))} <= known, "flows know stage names"
    inner = path.relative_to(ROOT).parts[1]
    if room == "d2v_core" and inner in ("model", "data"):
        others = {"training", "modalities", "evaluation", "interop", "model", "data"} - {inner}
        assert not {name for name in names for other in others if name.startswith(f"d2v_core.{other}")}
    if room == "d2v_core" and inner == "modalities" and path.name != "__init__.py":
        assert not {name for name in names if name.startswith("d2v_core.modalities")}, "modalities import sideways"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_stay_small_and_say_why(path):
    text = path.read_text()
    tree = ast.parse(text)
    assert text.count("\n") <= 350
    assert ast.get_docstring(tree), "a module says why it exists"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno - node.lineno < 60, f"{node.name} is too long"


def test_the_lock_holds_names_and_versions_alone():
    text = (ROOT / "constraints.txt").read_text()
    assert not re.search(r"://|file:|@ |--", text)
    assert re.search(r"^torch==", text, re.MULTILINE)


def test_only_the_modalities_and_foreign_formats_name_a_modality():
    for path in (ROOT / "d2v_core").rglob("*.py"):
        if path.parent.name not in ("modalities", "interop", "remote"):
            constants = [node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)]
            assert not {"speech", "vision"} & {value for value in constants if isinstance(value, str)}


def test_training_starts_where_only_the_core_libraries_are():
    absent = ("dvc", "prefect", "polars", "soundfile", "soxr", "sklearn", "jiwer", "matplotlib", "sentencepiece")
    code = f"import sys; sys.modules.update(dict.fromkeys({absent})); import stages.pretrain, stages.finetune"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
