"""Resume state: published whole, found by a LAST pointer, never a foreign pickle."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from d2v_core.data.files import publish, remove
from d2v_core.errors import UserError

LAST = "LAST"


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Hold the lock of ``folder`` while the block runs; raise UserError when another trainer holds it."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{folder} is in use by another trainer; wait for it or stop it.") from None
        yield


def save(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, position: dict[str, int]) -> None:
    """Save weights, optimizer state and ``position`` (plain integers) as update ``position["update"]``."""
    name = f"update-{position['update']}.pt"
    with publish(folder / name) as temporary:
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "position": position}, temporary)
    with publish(folder / LAST) as temporary:
        temporary.write_text(json.dumps(name))
    for old in folder.glob("update-*.pt"):
        if old.name != name:
            remove(old)


def restore(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, int] | None:
    """Load the last saved state into ``model`` and ``optimizer``; return its position, or None when there is none."""
    if not (folder / LAST).exists():
        return None
    path = folder / json.loads((folder / LAST).read_text())
    state = torch.load(path, map_location="cpu", weights_only=True)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return state["position"]


def clear(folder: Path) -> None:
    """Remove a finished run's resume state; the lock stays until its holder ends."""
    for file in os.listdir(folder):
        if file != "lock":
            remove(folder / file)
