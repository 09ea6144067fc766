"""Files of torch.save: every tensor as it was saved, and nothing in a file that is ever run."""

import argparse
import collections
import functools
import io
import os
import pickle
import struct
import zipfile
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from d2v_core.errors import UserError
from d2v_core.interop import pickles, symbolic
from d2v_core.interop.pickles import TorchFile, entries, read_tensors
from d2v_core.interop.symbolic import Inert, follow

FORMATS = pytest.mark.parametrize("archive", [True, False], ids=["archive", "stream"])
QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def save(content: object, path: Path, archive: bool = True) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=archive)
    return path


def views(dtype: torch.dtype, rows: int, columns: int) -> dict[str, torch.Tensor]:
    base = (torch.arange(rows * columns) % 101).reshape(rows, columns).to(dtype)
    return {"whole": base, "turned": base.t(), "part": base[rows // 2 :, ::2], "one": base.sum(), "none": base[:0]}


@FORMATS
@QUICK
@given(dtype=st.sampled_from(list(pickles.DTYPES.values())), rows=st.integers(1, 7), columns=st.integers(1, 7))
def test_tensors_come_back_as_they_were_saved(tmp_path, archive, dtype, rows, columns):
    saved = views(dtype, rows, columns)
    read = read_tensors(save(saved, tmp_path / "saved.pt", archive))
    assert read.keys() == saved.keys()
    for name, tensor in saved.items():
        assert read[name].dtype == tensor.dtype
        assert read[name].is_contiguous()
        assert torch.equal(read[name], tensor)


@FORMATS
def test_a_modules_state_and_its_parameters_come_back(tmp_path, archive):
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    read = read_tensors(save(model.state_dict(), tmp_path / "state.pt", archive))
    assert read.keys() == model.state_dict().keys()
    assert all(torch.equal(read[name], tensor) for name, tensor in model.state_dict().items())
    read = read_tensors(save(dict(model.named_parameters()), tmp_path / "parameters.pt", archive))
    assert all(torch.equal(read[name], parameter) for name, parameter in model.named_parameters())


def test_what_is_read_does_not_belong_to_the_file(tmp_path):
    path = save({"a": torch.ones(4), "b": torch.ones(4)}, tmp_path / "saved.pt")
    before = path.read_bytes()
    read_tensors(path)["a"].zero_()
    assert path.read_bytes() == before


@pytest.mark.parametrize("protocol", range(6))
def test_plain_values_come_back_in_every_protocol(protocol):
    content = {
        "numbers": [0, -1, 255, 70000, 2**40, -(2**80), 1.5, True, False, None],
        "texts": ("", "a", "é" * 300, b"bytes", b"x" * 300),
        "nested": {"list": [[], [1]], "tuple": ((), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4))},
    }
    read, _ = follow(io.BytesIO(pickle.dumps(content, protocol)))
    if protocol < 3:  # which writes bytes as calls
        read["texts"], content["texts"] = read["texts"][:3], content["texts"][:3]
    assert read == content


@pytest.mark.parametrize("protocol", range(6))
def test_objects_are_records_of_their_state(protocol):
    arguments = argparse.Namespace(width=3, nested=collections.OrderedDict(a=1))
    content = {"args": arguments, "kind": collections.OrderedDict, "set": {1, 2}, "count": collections.Counter("aab")}
    read, _ = follow(io.BytesIO(pickle.dumps(content, protocol)))
    assert entries(read["args"])["width"] == 3
    assert entries(entries(read["args"])["nested"]) == {"a": 1}
    assert (read["kind"].name, read["kind"].arguments) == ("collections.OrderedDict", None)
    assert read["count"].name == "collections.Counter"


class Hostile:
    """Runs whatever its reduction says when a real unpickler reads it."""

    def __init__(self, *reduction: object) -> None:
        self.reduction = reduction

    def __reduce__(self):
        return self.reduction


def attacks(command: str, evil: Path) -> dict[str, object]:
    """Return objects that create the canary when a real unpickler reads them."""
    touch = Hostile(os.system, (command,))
    return {
        "system": touch,
        "eval": Hostile(eval, (f"__import__('os').system({command!r})",)),
        "exec": Hostile(exec, (f"import os; os.system({command!r})",)),
        "in a configuration": {"cfg": argparse.Namespace(model={"deep": [({"er": touch},)]})},
        "as a key": {(touch,): 1},
        "as a state": Hostile(argparse.Namespace, (), {"x": touch}),
        "as an item": Hostile(list, (), None, iter([touch])),
        "as an entry": Hostile(dict, (), None, None, iter([("key", touch)])),
        "torch.load": Hostile(functools.partial(torch.load, weights_only=False), (str(evil),)),
        "map": Hostile(list, (Hostile(map, (os.system, [command])),)),
    }


@FORMATS
@pytest.mark.parametrize("name", attacks("", Path()))
def test_a_hostile_file_has_no_effect(tmp_path, name, archive):
    canary = tmp_path / "canary"
    evil = save(Hostile(os.system, (f"touch {canary}",)), tmp_path / "evil.pt")
    content = {"model": {"weight": torch.ones(2)}, "cfg": attacks(f"touch {canary}", evil)[name]}
    path = save(content, tmp_path / "hostile.pt", archive)
    file = TorchFile(path)
    assert torch.equal(file.tensors(entries(file.root)["model"])["weight"], torch.ones(2))
    with pytest.raises(UserError, match=r"never run|no state dict|no tensor"):
        read_tensors(path)
    assert not canary.exists()
    torch.load(path, weights_only=False)
    assert canary.exists(), "the attack is none"


def test_weights_that_depend_on_hostile_code_are_an_error_that_names_it(tmp_path):
    canary = tmp_path / "canary"
    path = save({"weight": Hostile(os.system, (f"touch {canary}",))}, tmp_path / "hostile.pt")
    with pytest.raises(UserError, match=r"hostile\.pt: weight is no tensor but posix\.system, which is never run"):
        read_tensors(path)
    storage = Hostile(torch._utils._rebuild_tensor_v2, (Hostile(os.system, (f"touch {canary}",)), 0, (1,), (1,)))
    with pytest.raises(UserError, match="its storage is none"):
        read_tensors(save({"weight": storage}, tmp_path / "storage.pt"))
    assert not canary.exists()


PROGRAMS = {  # by opcode, for those that today's pickle module does not write
    "INST": b"(S'touch {0}'\nios\nsystem\n.",
    "OBJ": b"(cos\nsystem\nS'touch {0}'\no.",
    "REDUCE": b"cos\nsystem\n(S'touch {0}'\ntR.",
    "BUILD": b"cargparse\nNamespace\n)R}S'__setstate__'\ncos\nsystem\nsbS'touch {0}'\nb.",
    "twice": b"c__builtin__\ngetattr\n(c__builtin__\n__import__\n(S'os'\ntRS'system'\ntR(S'touch {0}'\ntR.",
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_hostile_programs_of_every_kind_are_records(tmp_path, name):
    canary = tmp_path / "canary"
    program = PROGRAMS[name].replace(b"{0}", str(canary).encode())
    read, _ = follow(io.BytesIO(program))
    assert isinstance(read, Inert)
    assert not canary.exists()
    pickle.loads(program)
    assert canary.exists(), "the attack is none"


@FORMATS
@QUICK
@given(data=st.data())
def test_a_file_that_is_cut_off_is_refused(tmp_path, archive, data):
    whole = save({"a": torch.arange(9), "b": torch.ones(5)}, tmp_path / "whole.pt", archive).read_bytes()
    path = tmp_path / "cut.pt"
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(UserError, match=r"cut\.pt"):
        read_tensors(path)


@FORMATS
@settings(QUICK, max_examples=300)
@given(data=st.data())
def test_a_damaged_file_is_read_or_refused(tmp_path, archive, data):
    content = {"a": torch.arange(9), "b": nn.Parameter(torch.ones(5)), "c": argparse.Namespace(x=[1, (2, {3})])}
    whole = bytearray(save(content, tmp_path / "whole.pt", archive).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "damaged.pt"
    path.write_bytes(whole)
    try:
        file = TorchFile(path)
        file.tensors({name: record for name, record in (entries(file.root) or {}).items() if pickles.is_tensor(record)})
    except UserError as error:
        assert str(path) in str(error)  # noqa: PT017 - either is right


def test_a_flipped_bit_in_a_tensor_is_found(tmp_path):
    path = save({"a": torch.zeros(1000)}, tmp_path / "saved.pt")
    content = path.read_bytes()
    middle = content.index(bytes(4000)) + 2000
    path.write_bytes(content[:middle] + b"\x01" + content[middle + 1 :])
    with pytest.raises(UserError, match="checksum"):
        read_tensors(path)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [(b"", "is empty"), (b"hello\n", "not a file that torch.save wrote"), (pickle.dumps({}), "not a file")],
)
def test_other_files_are_refused(tmp_path, content, sentence):
    path = tmp_path / "other.pt"
    path.write_bytes(content)
    with pytest.raises(UserError, match=sentence):
        read_tensors(path)
    with pytest.raises(UserError, match="is missing"):
        read_tensors(tmp_path / "absent.pt")


def test_other_archives_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("a/b", b"c")
    with pytest.raises(UserError, match=r"not one that torch\.save wrote"):
        read_tensors(tmp_path / "other.zip")
    saved = save({"a": torch.zeros(100000)}, tmp_path / "saved.pt")
    with (
        zipfile.ZipFile(saved) as old,
        zipfile.ZipFile(tmp_path / "small.pt", "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for name in old.namelist():
            new.writestr(name, old.read(name))
    with pytest.raises(UserError, match="compressed"):
        read_tensors(tmp_path / "small.pt")


class Claim:
    """A tensor that claims a shape and stride of its own over a small storage."""

    def __init__(self, shape: tuple, stride: tuple, offset: int = 0) -> None:
        self.view = (offset, shape, stride)

    def __reduce__(self):
        return torch._utils._rebuild_tensor_v2, (torch.zeros(4).storage(), *self.view, False, {})


@pytest.mark.filterwarnings("ignore:TypedStorage")
@pytest.mark.parametrize(
    "claim",
    [
        Claim((10**6, 10**6), (0, 0)),
        Claim((2, 4), (4, 1)),
        Claim((4,), (1,), 1),
        Claim((2,), (2**62,)),
        Claim((-1,), (1,)),
        Claim((2,), (-1,), 1),
        Claim((1.5,), (1,)),
    ],
)
def test_a_tensor_is_never_larger_than_what_is_stored(tmp_path, claim):
    with pytest.raises(UserError, match=r"claim\.pt cannot be read \(weight"):
        read_tensors(save({"weight": claim}, tmp_path / "claim.pt"))


def test_programs_without_end_are_given_up(monkeypatch):
    monkeypatch.setattr(symbolic, "OPERATIONS", 1000)
    assert follow(io.BytesIO(b"N0" * 400 + b"N."))[0] is None
    with pytest.raises(ValueError, match="more than 1000"):
        follow(io.BytesIO(b"N0" * 600 + b"N."))


def test_deep_and_repeated_content_takes_no_room_of_its_own():
    deep = b"(" * 100000 + b"l" * 100000 + b"."
    assert isinstance(follow(io.BytesIO(deep))[0], list)
    doubled = b"]" + b"2\x86" * 60 + b"."
    assert isinstance(follow(io.BytesIO(doubled))[0], tuple)


def test_a_stream_of_another_byte_order_is_refused(tmp_path):
    path = save({"a": torch.ones(2)}, tmp_path / "saved.pt", archive=False)
    content = path.read_bytes()
    at = content.index(b"little_endian") + len("little_endian")
    end = content.index(b"\x88", at)
    path.write_bytes(content[:end] + b"\x89" + content[end + 1 :])
    with pytest.raises(UserError, match="big-endian"):
        read_tensors(path)


def test_a_length_below_zero_is_refused(tmp_path):
    path = save({"a": torch.full((2,), 7.0)}, tmp_path / "saved.pt", archive=False)
    content = path.read_bytes()
    at = content.rindex(struct.pack("<q", 2))
    path.write_bytes(content[:at] + struct.pack("<q", -2) + content[at + 8 :])
    with pytest.raises(UserError, match="negative"):
        read_tensors(path)
