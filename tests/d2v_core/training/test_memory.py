"""What training frees stays with the process."""

import subprocess
import sys

import pytest

CODE = """
import resource, torch
from d2v_core.training.memory import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [torch.empty(4_000_000).fill_(1.0) for _ in range(12)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
before = faults()
kept = keep_freed_memory()
faults()
print(int(kept), before, faults())
"""


def test_memory_that_was_freed_is_not_asked_of_the_system_again():
    said = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True).stdout.split()
    kept, before, after = map(int, said)
    if not kept:
        pytest.skip("this C library has no mallopt")
    assert after < before / 10
