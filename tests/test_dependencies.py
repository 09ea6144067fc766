"""What is asked for is used and explained, and the library asks for no more than its part."""

import re
import subprocess
import tomllib

import pytest

import d2v_core
from tests.tiny import ROOT

IMPORTED_AS = {
    "scikit-learn": "sklearn",
    "pyyaml": "yaml",
    "ruamel.yaml": "ruamel",
    "espeakng-loader": "espeakng_loader",
}
NOT_IMPORTED = {"fastapi", "sqlalchemy"}  # bounds on what prefect brings
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LIBRARY = tomllib.loads((ROOT / "deploy/library/pyproject.toml").read_text())["project"]


def name(requirement: str) -> str:
    return re.match(r"[\w.-]+", requirement)[0]


def asked() -> set[str]:
    extras = [requirement for extra in PROJECT["optional-dependencies"].values() for requirement in extra]
    return {name(requirement) for requirement in [*PROJECT["dependencies"], *extras]} - {"d2v"}


def test_the_page_lists_what_is_asked_for():
    cells = re.findall(r"^\| ([\w., -]+?) \|", (ROOT / "docs/dependencies.md").read_text(), re.MULTILINE)
    listed = {package for cell in cells for package in cell.split(", ")} - {"package"}
    assert listed == asked()


@pytest.mark.parametrize("package", sorted({name(line) for line in PROJECT["dependencies"]} - NOT_IMPORTED))
def test_a_dependency_is_imported(package):
    module = IMPORTED_AS.get(package, package)
    pattern = rf"^\s*(import|from) {module}\b"
    found = subprocess.run(
        ["git", "grep", "--untracked", "-qE", pattern, "--", "d2v_core", "stages", "flows"],
        cwd=ROOT,
        check=False,
        capture_output=True,
    )
    assert found.returncode == 0, f"nothing imports {module}; drop {package}"


def test_the_newest_changes_are_those_of_this_version():
    changes = (ROOT / "CHANGELOG.md").read_text()
    assert re.search(r"^## (\S+)", changes, re.MULTILINE)[1] == d2v_core.__version__


def test_the_library_asks_for_a_part_of_what_the_project_asks_for():
    assert set(LIBRARY["dependencies"]) <= set(PROJECT["dependencies"])
    assert LIBRARY["requires-python"] == PROJECT["requires-python"]
    assert PROJECT["dynamic"] == LIBRARY["dynamic"] == ["version"]  # of d2v_core
