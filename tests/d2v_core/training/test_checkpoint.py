"""Resume state is whole, found again, and has one writer."""

import shutil
from types import SimpleNamespace

import pytest
import torch

from d2v_core.errors import UserError
from d2v_core.run import write_run
from d2v_core.training import checkpoint
from d2v_core.training.optimizer import make_optimizer
from tests.d2v_core.blocks import small_model, small_setup
from tests.ranks import on_ranks
from tests.small_disk import fill, mount


def parts(seed):
    _, config = small_setup("vision")
    _, model = small_model("vision", seed)
    return model, make_optimizer(model, config.optimizer)


def test_what_is_saved_comes_back_and_only_the_last_is_kept(tmp_path):
    model, optimizer = parts(0)
    for update in (1, 2):
        checkpoint.save(tmp_path, model, optimizer, {"update": update, "epoch": 0, "position": update})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["LAST", "update-2.pt"]
    other, other_optimizer = parts(1)
    assert checkpoint.restore(tmp_path, other, other_optimizer) == {"update": 2, "epoch": 0, "position": 2}
    for one, two in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, two)


FULL = [OSError(28, "No space left on device"), RuntimeError("PytorchStreamWriter failed writing file data/3")]


@pytest.mark.parametrize("failure", FULL, ids=["the system's error", "torch's error"])
def test_a_full_disk_leaves_the_last_good_state_and_says_what_it_needs(tmp_path, monkeypatch, failure):
    model, optimizer = parts(0)
    checkpoint.save(tmp_path, model, optimizer, {"update": 1, "epoch": 0, "position": 1})

    def half(state, path):
        path.write_bytes(b"half")
        raise failure

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(UserError, match=r"no room for a checkpoint of \d+ MiB; free some, or set D2V_STATE"):
        checkpoint.save(tmp_path, model, optimizer, {"update": 2, "epoch": 0, "position": 2})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["LAST", "update-1.pt"]
    assert checkpoint.restore(tmp_path, *parts(1))["update"] == 1


def test_nothing_is_written_where_it_cannot_fit(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=10))
    with pytest.raises(UserError, match="no room for a checkpoint"):
        checkpoint.save(tmp_path, *parts(0), {"update": 1})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("left", [0.5, 1.01], ids=["seen before", "found out while writing"])
def test_a_disk_that_is_really_full_keeps_the_last_good_state(tmp_path, left):
    disk, (model, optimizer) = tmp_path / "disk", parts(0)
    needed = sum(tensor.nbytes for tensor in checkpoint.tensors(model.state_dict()))

    def work(_):
        if not mount(disk, 64 * needed):
            return "not allowed"
        checkpoint.save(disk / "state", model, optimizer, {"update": 1})
        filler = fill(disk, int(left * needed))
        refused = [
            pytest.raises(UserError, match=r"state has no room for a checkpoint of .* MiB; free some, or set"),
            pytest.raises(UserError, match=r"disk has no room for a model of .* MiB; free some, and run it again: it"),
        ]
        with refused[0]:
            checkpoint.save(disk / "state", model, optimizer, {"update": 2})
        with refused[1]:
            write_run(disk / "run", {}, model.state_dict())
        assert sorted(path.name for path in (disk / "state").iterdir()) == ["LAST", "update-1.pt"]
        assert sorted(path.name for path in disk.iterdir()) == ["filler", "state"]
        assert checkpoint.restore(disk / "state", *parts(1)) == {"update": 1}
        filler.unlink()
        checkpoint.save(disk / "state", model, optimizer, {"update": 2})
        write_run(disk / "run", {}, model.state_dict())
        return checkpoint.restore(disk / "state", *parts(1))

    answer = on_ranks(1, work)[0]
    if answer == "not allowed":
        pytest.skip("this machine lets nobody mount a file system")
    assert answer == {"update": 2}, answer


def test_a_second_trainer_is_refused(tmp_path):
    def second(_):
        with checkpoint.only_writer(tmp_path):
            return "let in"

    with checkpoint.only_writer(tmp_path):
        assert "is in use by another trainer" in on_ranks(1, second)[0]
    assert on_ranks(1, second)[0] == "let in"


def test_nothing_saved_means_start_anew(tmp_path):
    assert checkpoint.restore(tmp_path, *parts(0)) is None
