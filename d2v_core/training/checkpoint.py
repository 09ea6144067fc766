"""Resume state: published whole, found by a LAST pointer, never a foreign pickle."""

import errno
import fcntl
import json
import os
import pickle
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import nn

from d2v_core.data.files import publish, remove
from d2v_core.errors import UserError

LAST = "LAST"
UNUSABLE = (OSError, EOFError, LookupError, TypeError, ValueError, RuntimeError, pickle.UnpicklingError)
FULL = re.compile("PytorchStreamWriter|inline_container|No space left|quota")  # by torch, torch and safetensors


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
    """Save weights, optimizer state and ``position`` (plain integers) as update ``position["update"]``.

    Raises UserError where there is no room for it; the checkpoint before stays the last one.
    """
    name = f"update-{position['update']}.pt"
    content = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "position": position}
    with room_for(content, folder, "a checkpoint", "or set D2V_STATE to another disk"):
        with publish(folder / name) as temporary:
            torch.save(content, temporary)
        with publish(folder / LAST) as temporary:
            temporary.write_text(json.dumps(name))
    for old in folder.glob("update-*.pt"):
        if old.name != name:
            remove(old)


@contextmanager
def room_for(content: Mapping, folder: Path, what: str, else_do: str) -> Iterator[None]:
    """Turn a failure to write ``content`` into ``folder`` into a UserError that says how much room is needed."""
    needed = sum(tensor.nbytes for tensor in tensors(content))
    said = f"{folder} has no room for {what} of {needed / 2**20:.0f} MiB; free some, {else_do}."
    folder.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(folder).free < needed:
        raise UserError(said)
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        if getattr(error, "errno", None) not in (errno.ENOSPC, errno.EDQUOT) and not FULL.search(str(error)):
            raise
        raise UserError(said) from error


def tensors(content: object) -> Iterator[torch.Tensor]:
    """Yield the tensors anywhere in nested mappings and lists."""
    if isinstance(content, torch.Tensor):
        yield content
    elif isinstance(content, Mapping | list):
        for value in content.values() if isinstance(content, Mapping) else content:
            yield from tensors(value)


def restore(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, int] | None:
    """Load the last saved state into ``model`` and ``optimizer``; return its position, or None when there is none.

    Raises UserError for a state that is damaged or of another version of this program or of torch.
    """
    if not (folder / LAST).exists():
        return None
    with loading(folder):
        path = folder / json.loads((folder / LAST).read_text())
        state = torch.load(path, map_location="cpu", weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        return state["position"]


@contextmanager
def loading(folder: Path) -> Iterator[None]:
    """Turn a failure to load what was saved in ``folder`` into a UserError."""
    try:
        yield
    except UNUSABLE as error:
        raise UserError(
            f"{folder} holds a checkpoint that cannot be gone on from ({type(error).__name__}): remove the folder to "
            "train from the start, or use the versions of d2v and torch that wrote it."
        ) from error


def clear(folder: Path) -> None:
    """Remove a finished run's resume state; the lock stays until its holder ends."""
    for file in os.listdir(folder):
        if file != "lock":
            remove(folder / file)
