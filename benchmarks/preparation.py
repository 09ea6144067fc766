"""Does preparing cost more than the library calls that it cannot do without? How does it scale, and what does it hold?

``python -m benchmarks.preparation [speed | scaling | memory]``: prints, per modality and on one core, our throughput
against the bare calls in the same run (the median ratio of repeats in turn, in seconds that a core was busy, as a
shared machine distorts those on the wall); the throughput of two processes over one, beside
that of the bare calls; the peak memory of the stage for a corpus and one ten times as large. Text needs the vocabulary
and the corpus of ``make repro``; sounds and pictures are made here.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from operator import truediv
from pathlib import Path

import numpy as np
import soundfile
import torch
import yaml
from torchvision.io import write_jpeg

from d2v_core.errors import UserError
from d2v_core.modalities import speech, text, vision
from stages import runner
from stages.preparation import shards

ROOT = Path(__file__).parents[1]
REPEATS = 7
RATE, SIZE, TOKENS, SECONDS = 16000, 224, 512, 12
GROUPS = ("speed", "scaling", "memory")
VOCABULARY = ROOT / "data/vocabulary"
TABLES = {
    "speech": speech.TableConfig(RATE, 0.2, 30.0),
    "vision": vision.TableConfig(SIZE, 3),
    "text": text.TableConfig(1000, TOKENS),
}


def main(group: str = "") -> None:
    """Print the ratios, or one group of them; raises UserError for another one."""
    if group and group not in GROUPS:
        raise UserError(f"there is no group {group!r}; choose one of {', '.join(GROUPS)}.")
    torch.set_num_threads(1)
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before the first measurement")
    with tempfile.TemporaryDirectory() as folder:
        corpora = {"speech 16 kHz": ("speech", sounds(Path(folder) / "16", RATE, 64))}
        corpora["speech 44.1 kHz"] = ("speech", sounds(Path(folder) / "44", 44100, 32))
        corpora["vision"] = ("vision", pictures(Path(folder) / "pictures", 256))
        corpora["text"] = ("text", documents(Path(folder) / "text", 24))
        for name, (modality, paths) in corpora.items():
            if group in ("", "speed"):
                print(speed(name, modality, paths), flush=True)
            if group in ("", "scaling"):
                print(scaling(name, modality, paths), flush=True)
        if group in ("", "memory"):
            print(memory(Path(folder)), flush=True)


def sounds(folder: Path, rate: int, count: int) -> list[Path]:
    """Write ``count`` FLAC files of ``SECONDS`` of band-limited noise at ``rate`` Hz."""
    folder.mkdir()
    rng, paths = np.random.default_rng(0), []
    for number in range(count):
        noise = np.cumsum(rng.normal(0, 0.02, SECONDS * rate))
        paths.append(folder / f"1-1-{number:04d}.flac")
        soundfile.write(paths[-1], 0.3 * np.sin(noise), rate)
    return paths


def pictures(folder: Path, count: int) -> list[Path]:
    """Write ``count`` JPEG files of 500 × 375 smooth pixels, about as large as photographs."""
    folder.mkdir()
    generator, paths = torch.Generator().manual_seed(0), []
    for number in range(count):
        coarse = torch.rand(1, 3, 47, 63, generator=generator)
        fine = torch.nn.functional.interpolate(coarse, (375, 500), mode="bicubic")[0]
        noise = 0.05 * torch.randn(3, 375, 500, generator=generator)
        paths.append(folder / f"{number:04d}.jpg")
        write_jpeg(((fine + noise).clamp(0, 1) * 255).to(torch.uint8), str(paths[-1]), quality=90)
    return paths


def documents(folder: Path, count: int) -> list[Path]:
    """Write ``count`` documents of 100,000 characters of the sample corpus."""
    folder.mkdir()
    whole = "\n\n".join(path.read_text("utf-8") for path in sorted((ROOT / "data/raw/text").rglob("*.txt")))
    paths = []
    for number in range(count):
        start = number * 9973 % max(1, len(whole) - 100_000)
        paths.append(folder / f"{number:04d}.txt")
        paths[-1].write_text(whole[start : start + 100_000], "utf-8")
    return paths


def bare(modality: str, paths: Sequence[Path]) -> None:
    """Do what the libraries must do for every file, and nothing else."""
    if modality == "speech":
        import soxr

        for path in paths:
            samples, rate = soundfile.read(path, dtype="float32")
            if rate != RATE:
                soxr.resample(samples, rate, RATE, quality="HQ")
    elif modality == "vision":
        from torchvision.io import ImageReadMode, decode_image
        from torchvision.transforms.v2 import InterpolationMode
        from torchvision.transforms.v2.functional import center_crop, resize

        for path in paths:
            image = decode_image(str(path), ImageReadMode.RGB, apply_exif_orientation=True)
            center_crop(resize(image, [SIZE], InterpolationMode.BICUBIC, antialias=True), [SIZE, SIZE])
    else:
        from sentencepiece import SentencePieceProcessor

        processor = SentencePieceProcessor(model_file=str(VOCABULARY / "text/pieces.model"))
        for path in paths:
            processor.encode(path.read_text().split("\n\n"), num_threads=1)


def task(modality: str, paths: Sequence[Path], store: str) -> shards.Task:
    """Return the task of one shard of ``paths``."""
    job = shards.begin(modality, TABLES[modality], VOCABULARY / modality, store)
    common = {"split": "train", "label": None, "text": None}
    return shards.Task(job, "train", [{"id": path.stem, "path": str(path)} | common for path in paths], {})


def speed(name: str, modality: str, paths: Sequence[Path]) -> str:
    """Return the line of our throughput on one core over that of the bare calls."""
    ours, theirs, size = [], [], 0
    for _ in range(REPEATS + 1):
        with tempfile.TemporaryDirectory() as folder:
            work = task(modality, paths, folder)
            theirs.append(seconds(bare, modality, paths, clock=time.process_time))
            ours.append(seconds(shards.make_shard, work, clock=time.process_time))
            size = sum(path.stat().st_size for path in Path(folder).glob("*.arrow"))
    mine, ratios = statistics.median(ours[1:]), sorted(map(truediv, theirs[1:], ours[1:]))
    rate = f"{len(paths) / mine:8.1f} files/s, {size / mine / 1e6:6.1f} MB/s of table per core"
    around = f"{ratios[0]:.2f} - {ratios[-1]:.2f}, load {os.getloadavg()[0]:.1f}"
    return f"{name:16} {rate}; ours / bare = {statistics.median(ratios):.2f} ({around})"


def seconds(call: Callable, *arguments: object, clock: Callable[[], float] = time.perf_counter) -> float:
    """Return how long a call takes, or by ``time.process_time`` how long it keeps a core busy."""
    began = clock()
    call(*arguments)
    return clock() - began


def scaling(name: str, modality: str, paths: Sequence[Path]) -> str:
    """Return the line of two processes over one, ours and bare, each after a first round that starts them."""
    ratios: dict[str, list[float]] = {"ours": [], "bare": []}
    with tempfile.TemporaryDirectory() as folder, pool(1) as one, pool(2) as two:
        for number in range(4):
            work = [[task(modality, paths, f"{folder}/{number}-{i}") for i in range(at, at + 8)] for at in (0, 8)]
            alone, both = (
                seconds(spread, one, shards.make_shard, work[0]),
                seconds(spread, two, shards.make_shard, work[1]),
            )
            ratios["ours"].append(alone / both)
            calls = [Bare(modality, paths)] * 8
            ratios["bare"].append(seconds(spread, one, Bare.run, calls) / seconds(spread, two, Bare.run, calls))
    ours, bound = (statistics.median(values[1:]) for values in ratios.values())
    return f"{name:16} two processes / one: ours {ours:.2f}, bare calls {bound:.2f} (load {os.getloadavg()[0]:.1f})"


@dataclass(frozen=True)
class Bare:
    """The bare calls for some files, for a worker."""

    modality: str
    paths: Sequence[Path]

    def run(self) -> None:
        """Do them."""
        bare(self.modality, self.paths)


def pool(workers: int) -> ProcessPoolExecutor:
    """Return processes of one thread each."""
    return ProcessPoolExecutor(workers, get_context("spawn"), torch.set_num_threads, (1,))


def spread(workers: ProcessPoolExecutor, call: Callable, work: Sequence[object]) -> None:
    """Do all ``work``, as free workers come."""
    for _ in workers.map(call, work):
        pass


def memory(folder: Path) -> str:
    """Return the line of the largest peak memory of any process, for a corpus and for one ten times as large."""
    source = sounds(folder / "short", RATE, 8)
    peaks = [peak(folder / f"corpus-{count}", source, count) for count in (400, 4000)]
    return f"memory           {peaks[0]:.0f} MB for 400 files, {peaks[1]:.0f} MB for 4000: × {peaks[1] / peaks[0]:.2f}"


def peak(folder: Path, source: Sequence[Path], count: int) -> float:
    """Return the largest peak memory, in MB, of the processes that prepare ``count`` utterances of 12 s."""
    for number in range(count):
        path = folder / f"data/raw/speech/train/{number % 40}/1/{number % 40}-1-{number:05d}.flac"
        path.parent.mkdir(parents=True, exist_ok=True)
        os.link(source[number % len(source)], path)
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["modalities"]["speech"]["corpus"]["rows_per_shard"] = 64
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    variables = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    for stage in ("vocabulary", "prepare"):
        command = [sys.executable, "-c", MEASURE, stage, "speech"]
        said = subprocess.run(command, cwd=folder, env=variables, check=True, capture_output=True, text=True).stdout
    return float(said.splitlines()[-1])


MEASURE = """
import resource, subprocess, sys
subprocess.run([sys.executable, "-m", f"stages.{sys.argv[1]}", sys.argv[2]], check=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1000)
"""


if __name__ == "__main__":
    runner.call(main)
