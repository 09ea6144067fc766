"""How fast do rows come out of a table, beside the loaders of Hugging Face's ``datasets`` and of ``webdataset``?

``python -m benchmarks.reading``: writes the same rows for all three, reads an epoch of them in shuffled order, each row
as a NumPy array of its own, and prints rows per second and ratios, the median of repeats in turn, in one process and
without decoding, cropping or masking. The rows are drawn here: speech of 2 - 12 s at 16 kHz, images of 224 × 224
pixels in colour, blocks of 512 tokens.
"""

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"

import numpy as np

from d2v_core import modalities
from d2v_core.data.order import epoch_batches
from d2v_core.data.table import Table, write_index, write_shard
from stages import runner

REPEATS, SHARDS = 5, 4
ROWS = {"speech": 600, "vision": 1000, "text": 20_000}
COLUMN = {"speech": "audio", "vision": "image", "text": "tokens"}
BATCH = 32
Epochs = Iterator[np.ndarray]


def main() -> None:
    """Print rows per second of the three loaders for every modality."""
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, rows/s:")
    for modality in ROWS:
        with tempfile.TemporaryDirectory() as folder:
            readers = write(Path(folder), modality)
            rates: dict[str, list[float]] = {name: [] for name in readers}
            for epoch in range(REPEATS + 1):
                for name, read in readers.items():
                    rates[name].append(rate(read, epoch))
            found = {name: statistics.median(values[1:]) for name, values in rates.items()}
            others = ", ".join(f"{name} {value:.0f} (× {found['d2v'] / value:.1f})" for name, value in found.items())
            print(f"{modality:7} {others}", flush=True)


def rate(read: Callable[[int], Epochs], epoch: int) -> float:
    """Return rows per second of an epoch."""
    began, count, total = time.perf_counter(), 0, 0
    for array in read(epoch):
        count += 1
        total += int(array[-1])
    assert total > 0
    return count / (time.perf_counter() - began)


def draw(modality: str, rng: np.random.Generator) -> np.ndarray:
    """Return the values of one row, [N]."""
    if modality == "speech":
        return rng.integers(1, 2**15, rng.integers(32_000, 192_000)).astype(np.int16)
    if modality == "vision":
        return rng.integers(1, 256, 3 * 224 * 224).astype(np.uint8)
    return rng.integers(1, 2**15, 512).astype(np.uint16)


def write(folder: Path, modality: str) -> Mapping[str, Callable[[int], Epochs]]:
    """Write the rows for all three loaders and return what reads an epoch of each."""
    import webdataset

    rng, columns, name = np.random.default_rng(0), modalities.get(modality).columns, COLUMN[modality]
    entries = {}
    for shard in range(SHARDS):
        rows = [{"id": f"{shard}-{row:05d}", name: draw(modality, rng)} for row in range(ROWS[modality] // SHARDS)]
        path = folder / f"train-{shard:05d}.arrow"
        entries[path.name] = write_shard(path, columns, rows)
        with webdataset.TarWriter(str(folder / f"train-{shard:05d}.tar")) as tar:
            for row in rows:
                tar.write({"__key__": row["id"], "npy": row[name]})
    write_index(folder, entries, (), 0)
    return {"d2v": ours(folder, modality), "datasets": hugging_face(folder, name), "webdataset": tars(folder)}


def ours(folder: Path, modality: str) -> Callable[[int], Epochs]:
    """Return what reads an epoch as training does: batches of the epoch's order, rows of the mapped table."""
    table, name = Table(folder, "train", modalities.get(modality).columns), COLUMN[modality]
    lengths = table.lengths(name)

    def read(epoch: int) -> Epochs:
        for rows in epoch_batches(lengths, BATCH * int(lengths.max()), 0, epoch):
            for row in rows:
                yield np.array(table[row][name])

    return read


def hugging_face(folder: Path, name: str) -> Callable[[int], Epochs]:
    """Return what reads an epoch of the same Arrow files with ``datasets``, in batches, shuffled by its own means."""
    import datasets

    datasets.disable_progress_bars()
    files = [str(path) for path in sorted(folder.glob("*.arrow"))]
    data = datasets.load_dataset("arrow", data_files=files, split="train", cache_dir=str(folder / "cache"))
    data = data.with_format("numpy", columns=[name])

    def read(epoch: int) -> Epochs:
        for batch in data.shuffle(seed=epoch).iter(BATCH):
            yield from batch[name]

    return read


def tars(folder: Path) -> Callable[[int], Epochs]:
    """Return what reads an epoch of tar files with ``webdataset``, shards and a buffer of 1,000 rows shuffled."""
    import webdataset

    files = [str(path) for path in sorted(folder.glob("*.tar"))]

    def read(epoch: int) -> Epochs:
        data = webdataset.WebDataset(files, shardshuffle=len(files), seed=epoch, empty_check=False)
        for (array,) in data.shuffle(1000).decode().to_tuple("npy"):
            yield array

    return read


if __name__ == "__main__":
    runner.call(main)
