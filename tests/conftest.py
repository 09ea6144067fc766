"""Fixtures for every test: a small project to run stages in, and the real corpora where they are."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch comes in: tests run side by side

from pathlib import Path

import pytest
from hypothesis import settings

from tests.tiny import CORPORA, Project

settings.register_profile("d2v", deadline=None)  # a busy machine is no fault
settings.load_profile("d2v")


@pytest.fixture
def project(tmp_path, monkeypatch) -> Project:
    """An empty project in the current folder; ``prepare`` decodes in this process, however long it takes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    return Project(tmp_path, monkeypatch)


@pytest.fixture(scope="session")
def corpora() -> Path:
    """The collection of small real corpora beside the repository."""
    if not CORPORA.is_dir():
        pytest.skip(f"{CORPORA} is not there")
    return CORPORA
