"""Checkpoints of fairseq and BEiT as runs: our names for their tensors, and a configuration from sizes and settings."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from d2v_core.errors import UserError
from d2v_core.interop import fairseq_speech, fairseq_text, fairseq_v2, fairseq_vision
from d2v_core.interop.layout import Layout, strip
from d2v_core.interop.names import NAMED, Names, find, their_names, to_ours
from d2v_core.interop.pickles import TorchFile, entries, is_tensor
from d2v_core.interop.settings import Settings, walk
from d2v_core.model.supervised import head_layers
from d2v_core.setup import Setup, make_setup

VERSION_1 = (fairseq_speech.LAYOUT, fairseq_text.LAYOUT, fairseq_vision.BEIT, fairseq_vision.PORT)
VERSION_2 = (fairseq_v2.SPEECH, fairseq_v2.IMAGES, fairseq_v2.TEXT)
TEACHERS = ("_ema", "encoder._ema")
SYMBOLS = ("task_state", "target_dictionary")


def read_file(path: Path) -> tuple[dict, dict[str, Tensor]]:
    """Return the configuration and the weights of a run from a checkpoint of fairseq or BEiT, without running it.

    The configuration is a setup's (``Setup.describe``), with ``source``, ``assumed`` (published values that the file
    does not state), ``ignored`` (names of tensors without a place here) and, for fine-tuned models, ``head``, its
    kind, and ``symbols``. Weights are float32: ``encoder.``, ``head.`` (what predicts targets or labels) and, where
    the file has one, ``teacher.``. Raises UserError when the file is no such checkpoint, damaged or incomplete
    (reference, chapter 8).
    """
    path = Path(path)
    file = TorchFile(path)
    root = entries(file.root) or {}
    student, averages = records_of(root, path)
    return make_run(file.tensors(student, "model."), file.tensors(averages, "_ema."), root, path)


def make_run(
    student: Mapping[str, Tensor], averages: Mapping[str, Tensor], root: Mapping, path: Path
) -> tuple[dict, dict[str, Tensor]]:
    """Return what ``read_file`` does, from a student's tensors, a teacher's, and all else that the file holds."""
    theirs = strip(student, "module.")
    layout, tensors = recognise(theirs, path)
    settings, head = Settings(root), head_of(layout, tensors)
    setup = setup_of(layout, tensors, settings, head, path)
    with torch.device("meta"):
        wanted = setup.encoder().state_dict()
    encoder, used = gather(tensors, wanted, layout.names, path)
    weights = with_prefix(encoder, "encoder.")
    top, taken = head_weights(layout, tensors, head)
    config = {**setup.describe(), "source": path.name}
    if head is not None:
        config |= {"head": head, "symbols": symbols_of(root, head, top)}
        check_head(head, setup.trunk.width, len(config["symbols"]), top, path)
    if averages:
        teacher = layout.clean({**theirs, **with_prefix(averages, layout.teacher)})
        weights |= with_prefix(gather(teacher, wanted, layout.names, path)[0], "teacher.")
    config |= {"assumed": settings.assumed, "ignored": left_over(layout, tensors, used | taken, path)}
    return config, weights | top


def setup_of(layout: Layout, tensors: Mapping[str, Tensor], settings: Settings, head: str | None, path: Path) -> Setup:
    """Return the setup of a file's encoder; raise UserError when its sizes cannot be found or contradict each other."""
    try:
        return make_setup(layout.modality, layout.block(tensors, settings, head), "config")
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except (LookupError, TypeError, ValueError, ArithmeticError) as error:
        raise UserError(f"{path} lacks a {layout.modality} encoder's weights ({error}); fetch it again.") from None


def records_of(root: Mapping, path: Path) -> tuple[dict, dict]:
    """Return the records of the student's tensors and of the teacher's by name; raise UserError when there are none."""
    found = (entries(root.get(name)) for name in ("model", "module"))
    state = next((block for block in found if block), root)
    student = {name: record for name, record in state.items() if isinstance(name, str) and entries(record) is None}
    averages = next((entries(state[name]) for name in TEACHERS if name in state), None)
    if not any(is_tensor(record) for record in student.values()):
        raise UserError(f"{path} holds no model's weights; give a checkpoint of fairseq or BEiT.")
    return student, averages or entries(root.get("model_ema")) or {}


def with_prefix(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return ``tensors`` with ``prefix`` before every name."""
    return {prefix + name: tensor for name, tensor in tensors.items()}


def recognise(tensors: Mapping[str, Tensor], path: Path) -> tuple[Layout, dict[str, Tensor]]:
    """Return the layout of a file and its tensors by the names of it; raise UserError for an unknown one."""
    for layout in VERSION_1 + VERSION_2:
        cleaned = layout.clean(tensors)
        if layout.sign in cleaned:
            return layout, cleaned
    some = ", ".join(sorted(tensors)[:NAMED])
    raise UserError(f"{path} is no data2vec model that can be read (it holds {some}); give one of data2vec.")


def head_of(layout: Layout, tensors: Mapping[str, Tensor]) -> str | None:
    """Return the kind of the fine-tuned head among ``tensors``, None when there is none."""
    for kind, names in layout.heads.items():
        if all(theirs.replace("*", "weight") in tensors for theirs in names.values()):
            return kind
    return None


def gather(
    tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor], names: Names, path: Path
) -> tuple[dict[str, Tensor], set[str]]:
    """Return the weights ``wanted``, which gives names and shapes, as float32, and which of theirs they are made of.

    Raises UserError for weights that are missing or have another shape.
    """
    used = {source for name in wanted for source in their_names(name, names)[0]}
    return to_ours(tensors, wanted, names, str(path)), used


def head_weights(layout: Layout, tensors: Mapping[str, Tensor], kind: str | None) -> tuple[dict[str, Tensor], set[str]]:
    """Return the weights of the head, float32 by our names, and their names: a fine-tuned one or what predicts."""
    for names in layout.predicts if kind is None else (layout.heads[kind],):
        inverse = {theirs: ours for ours, theirs in names.items()}
        weights: dict[str, Tensor] = {}
        taken: set[str] = set()
        for name, tensor in tensors.items():
            try:
                pattern, groups = find(name, inverse)
            except KeyError:
                continue
            weights[filled(inverse[pattern], groups)] = tensor.float()
            taken.add(name)
        if weights:
            return weights, taken
    return {}, set()


def filled(pattern: str, values: Iterable[str]) -> str:
    """Return a pattern of names with ``values``, in order, in its gaps."""
    left = iter(values)
    return re.sub(r"[#*]", lambda _: next(left), pattern)


def check_head(kind: str, width: int, classes: int, weights: Mapping[str, Tensor], path: Path) -> None:
    """Raise UserError unless ``weights`` are those of our head of this kind."""
    with torch.device("meta"):
        wanted = {
            f"head.{name}": tensor.shape for name, tensor in head_layers(kind, width, classes).state_dict().items()
        }
    if {name: tensor.shape for name, tensor in weights.items()} != wanted:
        raise UserError(f"{path} has a head of other tensors or shapes than a {kind!r} head; fetch it again.")


def symbols_of(root: Mapping, kind: str, head: Mapping[str, Tensor]) -> list[str]:
    """Return the symbols of a head's outputs: the file's own, the published letters (6.1), or their numbers."""
    count = len([tensor for name, tensor in sorted(head.items()) if name.endswith("weight")][-1])
    said = walk(root, SYMBOLS)
    said = said.state.get("symbols") if isinstance(getattr(said, "state", None), dict) else None
    if isinstance(said, list) and len(said) == count and all(isinstance(symbol, str) for symbol in said):
        return said
    if kind == "ctc" and count == len(fairseq_speech.LETTERS):
        return list(fairseq_speech.LETTERS)
    return [str(number) for number in range(count)]


def left_over(layout: Layout, tensors: Mapping[str, Tensor], used: set[str], path: Path) -> list[str]:
    """Return the names of tensors that have no place here; raise UserError when the encoder needs one of them."""
    left = sorted(name for name in tensors if name not in used and not re.fullmatch(layout.harmless, name))
    needed = [name for name in left if name.startswith(layout.inside)]
    if needed:
        named = ", ".join(needed[:NAMED])
        raise UserError(
            f"{path} has tensors that no encoder here has, such as {named}; it is of another kind of model."
        )
    return left
