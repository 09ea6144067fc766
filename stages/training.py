"""What the training stages share: the setup, the device, where state lives, and how records become a CSV file."""

import csv
import hashlib
import json
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from itertools import chain, islice
from pathlib import Path

import torch

from d2v_core.data.files import publish
from d2v_core.data.table import digest
from d2v_core.pretraining import PretrainConfig
from d2v_core.setup import Setup, make_setup
from d2v_core.training import checkpoint, ranks
from d2v_core.training.loop import Step
from d2v_core.training.monitor import alarms
from d2v_core.training.ranks import ALONE, Ranks
from stages import params, runner
from stages.paths import STATE
from stages.progress import track


def read_setup(name: str) -> Setup:
    """Return the setup of modality ``name`` from params.yaml."""
    return make_setup(name, params.modality(name), f"{params.PATH}: modalities.{name}")


def pick_device() -> torch.device:
    """Return this process's GPU where there is one; a CPU run repeats to the bit, whatever the machine's cores."""
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    torch.set_num_threads(params.get("threads", int))
    torch.use_deterministic_algorithms(True)
    # Filling memory costs a quarter of a step and finds nothing here. The setting is a property of the module's class.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    return torch.device("cpu")


def gather(divisible: bool = True) -> Ranks:
    """Return this process's place among the ``processes`` of params.yaml, which are started when they have to be.

    Started by torchrun itself, the number is torchrun's. Replaces this program when there are several to start; there
    are none beside it when its work is not ``divisible``.
    """
    processes = params.get("processes", int)
    if processes > 1 and divisible and "WORLD_SIZE" not in os.environ:
        started = [sys.executable, "-m", "stages.launch", str(processes), runner.program(), *sys.argv[1:]]
        os.execv(sys.executable, started)
    return ranks.join()


def asked_to_stop() -> Callable[[], bool]:
    """Return what tells whether SIGTERM or Ctrl-C has come: training then saves and ends after the update it is in.

    A second Ctrl-C ends a process that is alone at once; torchrun passes the first one on.
    """
    came = threading.Event()

    def note(*_: object) -> None:
        came.set()
        if "WORLD_SIZE" not in os.environ:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, note)
    return came.is_set


def identity_of(setup: Setup, config: PretrainConfig, seed: int, table: Path) -> dict:
    """Return the plain values that a pretraining run depends on."""
    return {**setup.describe(), "pretrain": asdict(config), "seed": seed, "table_digest": digest(table)}


def state_folder(stage: str, identity: Mapping) -> Path:
    """Return where the resume state of a run is, named by a fingerprint of all that the run depends on."""
    root = Path(os.environ.get("D2V_STATE", STATE / "checkpoints"))
    return root / stage / hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]


@contextmanager
def resume_state(stage: str, identity: Mapping, place: Ranks = ALONE) -> Iterator[Path]:
    """Give the folder of a run's resume state.

    The first rank holds its lock and empties it when the block ends well. Raises UserError when another trainer
    holds it.
    """
    folder = state_folder(stage, identity)
    if not place.first:
        yield folder
        return
    with checkpoint.only_writer(folder):
        yield folder
        checkpoint.clear(folder)


def follow(steps: Iterable[Step], log: "CsvLog", label: str, updates: int, place: Ranks = ALONE) -> None:
    """Train to the end; on the first rank log records, show progress, and keep rates in ``state/speed``."""
    if not place.first:
        deque(steps, maxlen=0)
        return
    shown: dict[str, float] = {}
    speeds = CsvLog(STATE / "speed" / f"{label}.csv", fresh=True)
    steps = iter(steps)
    first = list(islice(steps, 1))
    done = first[0].update - 1 if first else 0
    for step in track(chain(first, steps), label, updates, done, "updates", lambda: note(shown)):
        if step.record:
            log.write(step.record)
            speed = utilised(step.speed)
            speeds.write({"update": step.update, **speed})
            shown.update(step.record | speed)
            for warning in alarms(step.record, updates):
                print(f"warning: {label} at update {step.update}: {warning}", file=sys.stderr, flush=True)


def utilised(speed: Mapping[str, float]) -> dict[str, float]:
    """Return ``speed`` and, where params.yaml states the ``peak`` of a device, the share of it in use (mfu)."""
    if params.get("peak") is None:
        return dict(speed)
    return {**speed, "mfu": speed["teraflops_per_second"] / params.get("peak", float)}


def note(record: Mapping[str, float]) -> str:
    """Return what a person watching wants to see of a record."""
    names = ("loss", "decay", "target_spread", "prediction_spread", "units_per_second", "teraflops_per_second", "mfu")
    return " ".join(f"{name}={record[name]:.4g}" for name in names if name in record)


class CsvLog:
    """A CSV file of records. A resumed run's first record replaces those from its update on: no row comes twice."""

    def __init__(self, path: Path, fresh: bool = False) -> None:
        self.path, self.rows, self.resumed = path, [], False
        if path.exists() and not fresh:
            with path.open(newline="") as lines:
                self.rows = list(csv.DictReader(lines))

    def write(self, record: Mapping[str, float]) -> None:
        """Append ``record`` and keep the file whole on disk."""
        if not self.resumed:
            self.rows = [row for row in self.rows if int(row["update"]) < record["update"]]
            self.resumed = True
        self.rows.append({name: f"{value:.6g}" for name, value in record.items()})
        write_csv(self.path, self.rows)


def write_csv(path: Path, rows: Sequence[Mapping]) -> None:
    """Publish ``rows`` as a CSV file with a header."""
    with publish(path) as temporary, temporary.open("w", newline="") as lines:
        writer = csv.DictWriter(lines, fieldnames=list(rows[0]) if rows else [], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def write_json(path: Path, content: Mapping) -> None:
    """Publish ``content`` as a JSON file for people and DVC."""
    with publish(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n")
