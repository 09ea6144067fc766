"""Slow tests run with ``D2V_NIGHTLY=1`` in the environment, as ``make nightly`` sets it."""

import os

import pytest

NIGHTLY = os.environ.get("D2V_NIGHTLY") == "1"


def nightly(reason: str) -> pytest.MarkDecorator:
    """Return the mark of a test that is left out in the daytime, and why: ``takes a minute``."""
    return pytest.mark.skipif(not NIGHTLY, reason=f"{reason}; set D2V_NIGHTLY=1")
