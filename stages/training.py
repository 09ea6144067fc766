"""What the training stages share: the setup, the device, where state lives, and how records become a CSV file."""

import csv
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch

from d2v_core.data.files import publish
from d2v_core.setup import Setup, make_setup
from d2v_core.training import checkpoint
from stages import params
from stages.paths import STATE


def read_setup(name: str) -> Setup:
    """Return the setup of modality ``name`` from params.yaml."""
    return make_setup(name, params.modality(name), f"{params.PATH}: modalities.{name}")


def pick_device() -> torch.device:
    """Return the GPU where there is one; a CPU run is made repeatable to the bit, whatever the machine's cores."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    torch.set_num_threads(params.get("threads", int))
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # costs a quarter of a step and finds nothing here
    return torch.device("cpu")


@contextmanager
def resume_state(stage: str, identity: Mapping) -> Iterator[Path]:
    """Hold the folder of a run's resume state, named by a fingerprint of all that the run depends on.

    It is emptied when the block ends well. Raises UserError when another trainer holds it.
    """
    root = Path(os.environ.get("D2V_STATE", STATE / "checkpoints"))
    fingerprint = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]
    folder = root / stage / fingerprint
    with checkpoint.only_writer(folder):
        yield folder
        checkpoint.clear(folder)


class CsvLog:
    """A CSV file of records. A resumed run's first record replaces those from its update on: no row comes twice."""

    def __init__(self, path: Path) -> None:
        self.path, self.rows, self.resumed = path, [], False
        if path.exists():
            with path.open(newline="") as lines:
                self.rows = list(csv.DictReader(lines))

    def write(self, record: Mapping[str, float]) -> None:
        """Append ``record`` and keep the file whole on disk."""
        if not self.resumed:
            self.rows = [row for row in self.rows if int(row["update"]) < record["update"]]
            self.resumed = True
        self.rows.append({name: f"{value:.6g}" for name, value in record.items()})
        write_csv(self.path, self.rows)


def write_csv(path: Path, rows: list[Mapping]) -> None:
    """Publish ``rows`` as a CSV file with a header."""
    with publish(path) as temporary, temporary.open("w", newline="") as lines:
        writer = csv.DictWriter(lines, fieldnames=list(rows[0]) if rows else [], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def write_json(path: Path, content: Mapping) -> None:
    """Publish ``content`` as a JSON file for people and DVC."""
    with publish(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n")
