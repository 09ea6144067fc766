"""Fixtures for every test: a small project to run stages in, and the real corpora where they are."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch comes in: tests run side by side

from pathlib import Path

import pytest
from hypothesis import settings

from tests.tiny import CORPORA, Project

LONGEST = (  # files, the longest first
    "test_pipeline.py", "test_reproduce.py", "test_results.py", "test_corpora.py", "test_processes.py", "test_fuzz.py",
    "test_executors.py", "test_several_processes.py", "test_versions.py", "test_language_model.py", "test_library.py",
)  # fmt: skip

settings.register_profile("d2v", deadline=None)  # a busy machine is no fault
settings.load_profile("d2v")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files: one that begins last would keep one process busy when the other is done."""
    place = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.name, len(place)))


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """The current folder, which is empty."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def project(home, monkeypatch) -> Project:
    """An empty project in the current folder; ``prepare`` decodes in this process, however long it takes."""
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    return Project(home, monkeypatch)


@pytest.fixture(scope="session")
def corpora() -> Path:
    """The collection of small real corpora beside the repository."""
    if not CORPORA.is_dir():
        pytest.skip(f"{CORPORA} is not there")
    return CORPORA
