"""What features without any learning give: ``python -m benchmarks.plain_features TASK [SEEDS]``.

Gradient histograms of images, mean and deviation over time of log-mel energies, or counts of pieces, with the same
logistic regression as ``stages.probe``; on the task's labels per class and, of what it draws, the same labels.
"""

import numpy as np
import torch
from torchvision.transforms.v2 import functional as pixels

from d2v_core.data.table import Row
from stages import params, runner
from stages.probe import ProbeConfig, few_rows, linear_probe
from stages.tasks import Task, read_task

ORIENTATIONS, CELL = 9, 4  # directions of edges; pixels along a cell of the histogram
MELS, WINDOW, STEP = 40, 0.025, 0.010  # bands; seconds


def gradients(row: Row, task: Task) -> np.ndarray:
    """Return the histograms of gradients of an image, cells and colour averages in a row."""
    size = task.setup.config.table.size
    image = torch.from_numpy(row["image"].reshape(-1, size, size).copy()).float() / 255
    gray = pixels.rgb_to_grayscale(image)[0].numpy() if len(image) == 3 else image[0].numpy()
    dy, dx = np.gradient(gray)
    angle = (np.arctan2(dy, dx) % np.pi / np.pi * ORIENTATIONS).astype(int) % ORIENTATIONS
    cells = np.zeros((size // CELL, size // CELL, ORIENTATIONS))
    place = np.arange(size) // CELL
    np.add.at(cells, (place[:, None], place[None, :], angle), np.hypot(dx, dy))
    cells /= np.sqrt((cells**2).mean(axis=2, keepdims=True)) + 0.1
    return np.concatenate([cells.ravel(), image.unfold(1, 8, 8).unfold(2, 8, 8).mean((-1, -2)).numpy().ravel()])


def energies(row: Row, task: Task) -> np.ndarray:
    """Return mean and deviation over time of the log-mel energies of an utterance."""
    rate = task.setup.config.table.sample_rate
    window, step = int(WINDOW * rate), int(STEP * rate)
    frames = np.lib.stride_tricks.sliding_window_view(row["audio"].astype(np.float32), window)[::step]
    power = np.abs(np.fft.rfft(frames * np.hanning(window), 512)) ** 2
    energy = np.log(power @ mel_bands(rate, power.shape[1]).T + 1e-3)
    energy -= energy.mean()
    return np.concatenate([energy.mean(axis=0), energy.std(axis=0)])


def mel_bands(rate: int, bins: int) -> np.ndarray:
    """Return triangles [bands, bins], evenly spaced in mel."""
    edges = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + rate / 1400), MELS + 2) / 2595) - 1)
    frequencies = np.linspace(0, rate / 2, bins)
    rising = (frequencies - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - frequencies) / np.diff(edges)[1:, None]
    return np.clip(np.minimum(rising, falling), 0, None)


def counts(row: Row, task: Task) -> np.ndarray:
    """Return the logarithm of how often each piece is in a text."""
    return np.log1p(np.bincount(row["tokens"], minlength=task.setup.config.table.vocabulary))


FEATURES = {"vision": gradients, "speech": energies, "text": counts}


def main(name: str, seeds: int = 3) -> None:
    """Print accuracies on valid and test for the few labels of every seed."""
    task, config = read_task(name), params.read(ProbeConfig, f"tasks.{name}.probe")
    features = {}
    for split in ("train", "valid", "test"):
        table = task.table(split)
        x = np.stack([FEATURES[task.setup.name](table[row], task) for row in range(len(table))])
        features[split] = x, np.array(table.column("label"))
    drawn = [few_rows(features["train"][1], config.per_class, seed) for seed in range(seeds)]
    found = [linear_probe(features, rows, config) for rows in drawn]
    for split in ("valid", "test"):
        values = [each[split] for each in found]
        print(f"{name} {split}: {np.mean(values):.1f} ± {np.std(values, ddof=1):.1f}")


if __name__ == "__main__":
    runner.call(main)
