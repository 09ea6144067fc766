"""``python -m benchmarks.onnx_files RECIPE ...``: published encoders with random weights as ONNX files.

How far their numbers are from PyTorch's, how large they are, and what making and checking them takes.
"""

import resource
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from benchmarks.published import published
from d2v_core.run import write_run
from stages import export, runner


def main(*recipes: str) -> None:
    """Print two lines for each of ``recipes``, such as v1/text-base; memory is the most of all so far."""
    for name in recipes:
        setup, _ = published(name)
        torch.manual_seed(0)
        weights = {f"encoder.{key}": value for key, value in setup.encoder().state_dict().items()}
        with TemporaryDirectory() as folder:
            run, target = Path(folder, name), Path(folder, "encoder.onnx")
            write_run(run, setup.describe(), weights)
            start = time.process_time()
            export.export_onnx(run, target)
            seconds, size = time.process_time() - start, target.stat().st_size
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        count = sum(weight.numel() for weight in weights.values()) / 1e6
        print(f"{name}: {count:.0f} M numbers, {size / 1e6:.0f} MB, {seconds:.0f} s of CPU, {memory:.1f} GiB")


if __name__ == "__main__":
    runner.call(main)
