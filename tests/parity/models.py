"""The six tiny models of the golden numbers, built from our configuration and filled with the reference's weights."""

import functools
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from d2v_core.config import build
from d2v_core.model.data2vec import Data2Vec
from d2v_core.pretraining import PretrainConfig, make_model
from d2v_core.setup import make_setup
from stages.params import merge
from tests.d2v_core.blocks import small_block
from tests.parity.names import gather

GOLDEN = Path(__file__).parents[3] / "shared" / "golden" / "pretrain"
NO_AUGMENTATION = {"turn": 0.0, "jitter": 0.0, "area": 1.0, "aspect": 1.0, "flip": False} | {
    "mean": [0.0] * 3,
    "std": [1.0] * 3,
}


@dataclass(frozen=True)
class Case:
    """A golden model: which block of ours it is, what differs in it, and how the reference names its teacher."""

    modality: str
    version: int
    changes: dict
    teacher_prefix: str = ""
    prenet: int = 0
    without_place: tuple[str, ...] = field(default=())  # weights that our model does not have

    @property
    def blocks(self) -> int:
        """Blocks that the reference numbers as its main ones."""
        return self.changes["model"]["trunk"]["depth"] - self.prenet


def trunk(depth: int = 4, **more: float) -> dict:
    """Return the size that all six models share."""
    return {"width": 32, "depth": depth, "heads": 4, "feedforward": 128} | more


def objective(**more: object) -> dict:
    """Return the block ``pretrain`` with the schedule of all six models."""
    schedule = {"start": 0.9, "end": 0.99, "ramp": 4}
    changes = {"teacher": schedule, "targets": {"layers": 3}}
    return {"objective": merge(changes, more)}


def views(count: int, **decoder: object) -> dict:
    """Return the block ``views`` of a model of version 2."""
    return {"count": count, "decoder": decoder}


SPEECH_LOCAL = {"channels": 24, "position_layers": 5, "position_kernel": 19, "position_groups": 8}
CASES = {
    "v1_audio": Case(
        "speech",
        1,
        {"model": {"local": SPEECH_LOCAL, "trunk": trunk(feedforward=96)}, "pretrain": objective()},
        teacher_prefix="encoder.",
    ),
    "v1_text": Case(
        "text",
        1,
        {
            "table": {"vocabulary": 50, "tokens": 64},
            "model": {"local": {"train_positions": True}, "trunk": trunk(feedforward=96)},
            "pretrain": objective(teacher={"copied": ["local."]}),
        },
        teacher_prefix="encoder.sentence_encoder.",
        without_place=("encoder.sentence_encoder.version",),
    ),
    # the reference's own port of vision: no head, one norm, a shared patch embedding (reference 3.9)
    "v1_vision": Case(
        "vision",
        1,
        {
            "table": {"size": 48, "channels": 3},
            "model": {
                "augment": NO_AUGMENTATION,
                "local": {"patch": 8, "positions": 0.0},
                "trunk": trunk(epsilon=1e-5),
            },
            "pretrain": objective(
                teacher={"copied": ["local.patches", "local.class_token", "local.mask_token"]},
                targets={"result": "block", "norm_each": [], "norm_mean": ["layer"]},
                loss={"beta": 2.0, "scale": "inverse_sqrt_width"},
            ),
        },
        teacher_prefix="encoder.",
        without_place=("final_proj.weight", "final_proj.bias"),
    ),
    "v2_audio": Case(
        "speech",
        2,
        {
            "model": {"local": SPEECH_LOCAL, "trunk": trunk()},
            "pretrain": objective(views=views(3, channels=24, kernel=7, layers=3, groups=4)),
        },
    ),
    "v2_text": Case(
        "text",
        2,
        {
            "table": {"vocabulary": 50, "tokens": 64},
            "model": {"local": {"train_positions": True}, "trunk": trunk()},
            "pretrain": objective(views=views(3, channels=32, kernel=9, layers=3, groups=1)),
        },
        teacher_prefix="blocks.",
    ),
    "v2_image": Case(
        "vision",
        2,
        {
            "table": {"size": 48, "channels": 3},
            "model": {"augment": NO_AUGMENTATION, "local": {"patch": 8}, "trunk": trunk(5)},
            "pretrain": objective(views=views(4, channels=32, kernel=3, layers=3, groups=4) | {"class_weight": 0.01}),
        },
        prenet=2,
    ),
}


@functools.cache
def golden(name: str) -> dict[str, Tensor]:
    """Return everything that was dumped of the model ``name``."""
    return load_file(GOLDEN / f"{name}.safetensors")


def block_of(case: Case) -> dict:
    """Return the params block of a golden model, with nothing dropped at random."""
    block = merge(small_block(case.modality, case.version), case.changes)
    views = block["pretrain"]["objective"].get("views", {"decoder": {}})
    for part in (block["model"]["trunk"], block["model"]["local"], views["decoder"]):
        part |= {key: 0.0 for key in part if "dropout" in key}
    return block


def family(dumped: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose key starts with ``prefix``, without it."""
    return {key.removeprefix(prefix): value for key, value in dumped.items() if key.startswith(prefix)}


def make(name: str) -> Data2Vec:
    """Return our model with the reference's student and teacher; raise when a weight has no place in it."""
    case, dumped, block = CASES[name], golden(name), block_of(CASES[name])
    setup = make_setup(case.modality, block, name)
    model = make_model(setup, build(PretrainConfig, block["pretrain"], name))
    if name == "v1_vision":
        model.head = nn.Identity()
    weights = {key: value for key, value in family(dumped, "weights/").items() if key not in case.without_place}
    teacher = {case.teacher_prefix + key: value for key, value in family(dumped, "ema_init/").items()}
    teacher = {key: value for key, value in teacher.items() if key not in case.without_place}
    student = gather(weights, case.version, case.prenet)
    head = {key: student.pop(key) for key in list(student) if key.startswith("head.")}
    fill(model.head, family(head, "head."))
    fill(model.student, student)
    fill(model.teacher.encoder, student | gather(teacher, case.version, case.prenet))
    return model.train()


@torch.no_grad()
def fill(module: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Copy ``tensors`` into all parameters of ``module``; fail for one too many or too few.

    Tensors that belong to buffers are left alone: ours are computed, and compared elsewhere.
    """
    own = dict(module.named_parameters())
    assert own.keys() == tensors.keys() - dict(module.named_buffers()).keys()
    for name, parameter in own.items():
        parameter.copy_(tensors[name].reshape(parameter.shape))
