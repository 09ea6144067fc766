"""Supervised training of an encoder and a head on labelled rows: from pretrained weights or from scratch."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from d2v_core.config import build, require
from d2v_core.data import masks
from d2v_core.data.mixing import MixConfig, WaveMixConfig, mix, mix_waves
from d2v_core.data.order import Batch, Place, follow, key
from d2v_core.data.table import LABELS, Row, Table
from d2v_core.errors import UserError
from d2v_core.model.encoder import Encoder
from d2v_core.model.supervised import HeadConfig, Supervised
from d2v_core.setup import Setup
from d2v_core.training.loop import LoopConfig, Step
from d2v_core.training.optimizer import OptimizerConfig
from d2v_core.training.ranks import ALONE, Ranks
from d2v_core.training.resume import fit_resumably

ROWS_AT_ONCE = 32
MIXING = 1  # the last part of the keys of blended batches
Labels = Callable[[Sequence[Row]], Tensor]


@dataclass(frozen=True)
class RegulariseConfig:
    """What the trunk drops in fine-tuning, in place of what it dropped in pretraining (reference 6.1, 6.3, 6.4)."""

    dropout: float
    attention_dropout: float
    activation_dropout: float
    layer_drop: float
    drop_path: float


@dataclass(frozen=True)
class HideConfig:
    """Spans hidden in fine-tuning: ``probability`` as if they did not overlap, and ``length`` (reference 2.4)."""

    probability: float
    length: int

    def __post_init__(self) -> None:
        require(0 <= self.probability < 1, f"probability must be in [0, 1), not {self.probability}.")
        require(self.length > 0, f"length must be positive, not {self.length}.")


@dataclass(frozen=True)
class ChooseConfig:
    """When the model is scored on the split ``valid``, so that its best weights are kept (reference 6.1, 6.2, 6.4).

    At every multiple of ``every`` updates from update ``after`` on, and at the last update. The score is the mean of
    the ``metrics``, by default the first one that the task has.
    """

    every: int
    after: int = 0
    metrics: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require(self.every > 0, f"every must be positive, not {self.every}.")
        require(self.after >= 0, f"after must not be negative, but is {self.after}.")


@dataclass(frozen=True)
class FinetuneConfig:
    """The block ``train`` of a task.

    ``batch`` is the budget of one batch in the modality's unit; ``per_class`` labels are used (0: all of them).
    ``augment`` changes the modality's own block ``augment``: {} leaves it as it is, null augments nothing; ``mix``
    blends the images of a batch, ``mix_waves`` its waves. ``frozen`` names parts of the encoder that never learn;
    ``hide_tokens`` and ``hide_channels`` hide spans from it. ``block_bias`` gives every block a copy of the bias that
    all share (3.2). ``choose`` says when the best weights are looked for; null: the last ones are kept. ``fresh`` names
    parts of the encoder that begin with random weights, pretrained or not.
    """

    batch: float
    per_class: int
    augment: Mapping | None
    seeds: tuple[int, ...]
    head: HeadConfig
    regularise: RegulariseConfig | None
    frozen: tuple[str, ...]
    hide_tokens: HideConfig | None
    hide_channels: HideConfig | None
    optimizer: OptimizerConfig
    loop: LoopConfig
    mix: MixConfig | None = None
    block_bias: bool = False
    mix_waves: WaveMixConfig | None = None
    choose: ChooseConfig | None = None
    fresh: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require(self.batch > 0, f"batch must be positive, not {self.batch}.")
        require(len(self.seeds) > 0, "seeds must hold at least one number.")
        require(self.per_class >= 0, f"per_class must not be negative, but is {self.per_class}.")
        counted = self.head.kind not in ("ctc", "score") or self.per_class == 0
        require(counted, f"per_class must be 0, not {self.per_class}, for the head {self.head.kind!r} without classes.")
        for name in ("mix", "mix_waves"):
            fits = self.head.kind not in ("ctc", "score") or not getattr(self, name)
            require(fits, f"{name} needs a head of classes; set it to null for {self.head.kind!r}.")
        whole = self.head.kind != "ctc" or self.augment is None
        require(whole, "augment must be null for the head 'ctc', whose transcripts are of whole items.")


def finetuned_setup(setup: Setup, config: FinetuneConfig) -> Setup:
    """Return the setup of the encoder under a head: its own regularisation and augmentation.

    It has no final norm before a pooled one. Raises UserError when what it changes is not in the modality.
    """
    trunk = replace(setup.trunk, **asdict(config.regularise)) if config.regularise else setup.trunk
    trunk = replace(trunk, final_norm=trunk.final_norm and config.head.kind != "mean")
    if config.head.layers == "weighted" and trunk.layer_drop:
        raise UserError(f"{setup.name}: layers of the head are weighted but may be dropped; set layer_drop to 0.")
    blocks = dict(vars(setup.config))
    if config.augment:
        if "augment" not in blocks:
            raise UserError(f"{setup.name} has no block model.augment to change; set train.augment to null or {{}}.")
        blocks["augment"] = {**asdict(blocks["augment"]), **config.augment}
    if config.block_bias:
        if getattr(blocks["local"], "bias", "none") == "none":
            raise UserError(f"{setup.name} has no bias in model.local to copy; set train.block_bias to false.")
        blocks["local"] = replace(blocks["local"], bias="block")
    return replace(setup, trunk=trunk, config=build(type(setup.config), blocks, f"{setup.name}: train"))


def require_parts(encoder: Encoder, parts: Sequence[str], key: str) -> None:
    """Raise UserError for one of ``parts`` with which no parameter of ``encoder`` begins; ``key`` has named them."""
    names = [name for name, _ in encoder.named_parameters()]
    for part in parts:
        if not any(name.startswith(part) for name in names):
            raise UserError(f"train.{key} names {part!r}, with which no weight begins; one of them is {names[-1]}.")


def finetune(
    setup: Setup,
    config: FinetuneConfig,
    model: Supervised,
    table: Table,
    labels: Labels,
    seed: int,
    state: Path,
    ranks: Ranks = ALONE,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[Step]:
    """Train ``model`` on the labelled rows of ``table``, on the device it is on; yield after every update.

    Resume state is kept in the folder ``state``.
    """
    setup, rows = finetuned_setup(setup, config), labelled_rows(table, config, seed)
    require_parts(model.encoder, config.frozen, "frozen")
    for name, parameter in model.encoder.named_parameters():
        parameter.requires_grad_(parameter.requires_grad and not name.startswith(config.frozen))

    def make(batch: Batch) -> dict[str, Tensor]:
        numbers = rows[batch.rows]
        chosen = [table[row] for row in numbers]
        rngs = [key(seed, batch.epoch, int(row)) for row in numbers]
        inputs = setup.modality.batch(chosen, None if config.augment is None else rngs, setup.config)
        inputs = inputs | hide(setup, config, inputs, rngs) | {"labels": labels(chosen)}
        return inputs | blend(inputs, key(seed, batch.epoch, batch.position, MIXING))

    lengths = setup.modality.lengths(table, setup.config)[rows]

    def order(start: Place) -> Iterator[tuple[Batch, Place]]:
        return follow(lengths, config.batch, seed, start)

    def blend(inputs: dict[str, Tensor], rng: np.random.Generator) -> dict[str, Tensor]:
        if config.mix_waves:
            return mix_waves(inputs, len(table.classes), rng, config.mix_waves)
        return mix(inputs, len(table.classes), rng, config.mix) if config.mix else {}

    return fit_resumably(model, make, order, config.loop, config.optimizer, seed, state, ranks, stop)


def hide(
    setup: Setup, config: FinetuneConfig, inputs: dict[str, Tensor], rngs: Sequence[np.random.Generator]
) -> dict[str, Tensor]:
    """Return what of a batch fine-tuning hides: tokens in ``mask`` [B, T] and channels in ``channels`` [B, D] (6.1)."""
    hidden = {}
    if config.hide_tokens:
        counts = setup.modality.tokens(inputs, setup.config)
        spans = config.hide_tokens
        drawn = [
            np.pad(masks.spans(rng, count, spans.probability, spans.length), (0, counts.max() - count))
            for rng, count in zip(rngs, counts, strict=True)
        ]
        hidden["mask"] = torch.from_numpy(masks.equalise(drawn, rngs))
    if config.hide_channels:
        spans, width = config.hide_channels, setup.trunk.width
        drawn = [masks.spans(rng, width, spans.probability, spans.length, least=0) for rng in rngs]
        hidden["channels"] = torch.from_numpy(masks.equalise(drawn, rngs))
    return hidden


def labelled_rows(table: Table, config: FinetuneConfig, seed: int) -> np.ndarray:
    """Return the numbers of the rows to learn from: all labelled ones, or ``per_class`` keyed ones of each class."""
    if config.head.kind == "ctc":
        rows = np.flatnonzero([bool(text) for text in table.column("text")])
    elif config.head.kind == "score":
        rows = np.flatnonzero([score is not None for score in table.column("score")])
    else:
        owners, labels = label_pairs(table, config.head)
        turns = np.argsort(key(seed, 0).permutation(len(table)))
        order = np.argsort(turns[owners], kind="stable")
        wanted = config.per_class or len(table)
        groups = [owners[order][labels[order] == label][:wanted] for label in range(len(table.classes))]
        rows = np.unique(np.concatenate(groups)) if groups else np.empty(0, dtype=int)
    if len(rows) == 0:
        raise UserError(f"{table.folder} has no labelled row in its {table.split!r} split; fine-tuning needs labels.")
    return rows


def label_pairs(table: Table, head: HeadConfig) -> tuple[np.ndarray, np.ndarray]:
    """Return a row number and a class for every label of ``table``, both [labels] int64; a row may have several."""
    if head.kind == "tags":
        return np.repeat(np.arange(len(table)), table.lengths(LABELS.name)), table.values(LABELS.name).astype(np.int64)
    found = np.array([-1 if label is None else label for label in table.column("label")])
    return np.flatnonzero(found >= 0), found[found >= 0]


def label_columns(setup: Setup, head: HeadConfig) -> pa.Schema:
    """Return the columns of the tables from which ``head`` learns: the modality's, and for several labels theirs."""
    return setup.modality.columns.append(LABELS) if head.kind == "tags" else setup.modality.columns


@torch.no_grad()
def predict(setup: Setup, model: Supervised, table: Table, device: torch.device) -> Iterator[Tensor]:
    """Yield, for every row of ``table`` in order, its logits on the CPU: [C], or for CTC [real tokens, C]."""
    model.eval().to(device)
    for rows in table.chunks(ROWS_AT_ONCE):
        yield from logits_of(setup, model, rows, device)


@torch.no_grad()
def logits_of(setup: Setup, model: Supervised, rows: Sequence[Row], device: torch.device) -> list[Tensor]:
    """Return what ``predict`` yields for one batch of rows, by a model that is on ``device`` and evaluates."""
    inputs = setup.modality.batch(rows, None, setup.config)
    logits, padding = model.logits({name: tensor.to(device) for name, tensor in inputs.items()})
    if padding is None or logits.ndim == 2:
        return list(logits.cpu())
    return [values[~hidden] for values, hidden in zip(logits.cpu(), padding.cpu(), strict=True)]
