"""Why a speaker is misheard: ``python -m benchmarks.altered_speech TASK SEED [ORIGIN...]``.

Prints the accuracies of fine-tuned runs of TASK on the speakers for choosing (valid) and for reporting (test), as
recorded and altered: with noise, with the other's noise, without high frequencies, faster. What is changed and costs
as much as the speaker does, and what helps when it is taken away, is the cause.
"""

from collections.abc import Callable, Mapping

import numpy as np
import soxr

from benchmarks.varied_speech import centred, whole
from d2v_core.data.table import Row, Table
from stages import runner, tasks
from stages.tasks import ORIGINS, Task

FRAME = 256  # samples
QUIET = 0.1  # share of frames that hold noise alone
Change = Callable[[np.ndarray], np.ndarray]


class Altered(Table):
    """One split of a task's table with every recording changed."""

    def __init__(self, task: Task, split: str, change: Change) -> None:
        """``change`` maps samples [N] with unit variance to others."""
        super().__init__(task.folder, split, task.setup.modality.columns, task.setup.config.table)
        self.change = change

    def __getitem__(self, row: int) -> Row:
        """Return a row with its recording changed."""
        found = super().__getitem__(row)
        return found | {"audio": whole(self.change(centred(found["audio"])))}


def main(name: str, seed: int, *origins: str) -> None:
    """Print a line for each change and each origin (all: pretrained and scratch)."""
    for origin in origins or ORIGINS:
        task, model = tasks.load_finetuned(tasks.read_task(name), origin, seed)
        for change, alter in changes(task).items():
            found = []
            for split in ("valid", "test"):
                table = Altered(task, split, alter)
                answers = task.answers(model, table)
                found.append(100 * np.mean([a == b for a, b in zip(answers, task.truths(table), strict=True)]))
            print(f"{name} {origin} seed {seed}, {change}: valid {found[0]:.1f} test {found[1]:.1f}", flush=True)


def changes(task: Task) -> Mapping[str, Change]:
    """Return what is done to recordings, by name."""
    rate, rng = task.setup.config.table.sample_rate, np.random.default_rng(0)
    hiss = quiet_spectrum(Table(task.folder, "test", task.setup.modality.columns))
    level = np.sqrt(hiss.sum())

    def noise(spectrum: np.ndarray, deviation: float) -> Change:
        def add(wave: np.ndarray) -> np.ndarray:
            drawn = filtered(rng.standard_normal(len(wave)), np.sqrt(spectrum))
            return wave + drawn * (deviation / drawn.std())

        return add

    below = (np.linspace(0, rate / 2, FRAME // 2 + 1) < 0.4 * rate).astype(float)
    above = (np.linspace(0, rate / 2, FRAME // 2 + 1) > 0.01 * rate).astype(float)
    return {
        "as recorded": lambda wave: wave,
        "noise of the test speaker": noise(hiss, level),
        "white noise 20 dB below": noise(np.ones_like(hiss), 0.1),
        f"nothing above {0.4 * rate:.0f} Hz": lambda wave: filtered(wave, below),
        f"nothing below {0.01 * rate:.0f} Hz": lambda wave: filtered(wave, above),
        "1.15 times as fast": lambda wave: soxr.resample(wave, rate * 1.15, rate),
    }


def quiet_spectrum(table: Table) -> np.ndarray:
    """Return the power [FRAME / 2 + 1] of the quietest frames, as shares of that of all frames."""
    whole, quiet = [], []
    for row in range(len(table)):
        wave = centred(table[row]["audio"])
        frames = np.lib.stride_tricks.sliding_window_view(wave, FRAME)[:: FRAME // 2] * np.hanning(FRAME)
        power = np.abs(np.fft.rfft(frames)) ** 2
        total = power.sum(axis=1)
        whole.append(power.mean(axis=0))
        quiet.append(power[total <= np.quantile(total, QUIET)].mean(axis=0))
    return np.mean(quiet, axis=0) / np.mean(whole, axis=0).sum()


def filtered(wave: np.ndarray, gain: np.ndarray) -> np.ndarray:
    """Return samples [N] with frequencies multiplied by ``gain``, given from 0 to half the rate."""
    padded = np.pad(wave, FRAME)
    frequencies = np.fft.rfftfreq(len(padded))
    shaped = np.fft.rfft(padded) * np.interp(frequencies, np.linspace(0, 0.5, len(gain)), gain)
    return np.fft.irfft(shaped, len(padded))[FRAME:-FRAME]


if __name__ == "__main__":
    runner.call(main)
