"""Stage ``probe``: how much a frozen encoder knows, pretrained beside random weights of the same shape.

Classification: logistic regression and nearest neighbours on mean-pooled features. Transcripts, numbers and tags: the
task's own head. Both read the last layer or, as SUPERB does, a learnt average of all layers (reference 6.5).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from d2v_core.config import require
from d2v_core.data.order import key
from d2v_core.evaluation.features import pooled_features
from d2v_core.finetuning import RegulariseConfig
from d2v_core.model.encoder import Encoder
from stages import params, runner, tasks, training
from stages.finetune import train
from stages.intervals import Scoring
from stages.paths import METRICS
from stages.tasks import Task

WHOLE = RegulariseConfig(dropout=0.0, attention_dropout=0.0, activation_dropout=0.0, layer_drop=0.0, drop_path=0.0)
SPLITS = ("valid", "test")
Features = Mapping[str, tuple[np.ndarray, np.ndarray]]
Hits = dict[str, np.ndarray]  # split → whether the answers to its rows are right, [rows] bool


@dataclass(frozen=True)
class ProbeConfig:
    """The block ``probe`` of a task.

    ``seeds`` draw the random encoders and the few labels; ``per_class`` is how many few are; ``neighbours`` and the
    inverse ``penalties`` to choose from on the valid split are for classes, ``updates`` and ``rate`` for other answers.
    Linear probes read the ``last`` layer, or the average of all ``layers`` by weights that they learn.
    """

    seeds: tuple[int, ...]
    per_class: int = 10
    neighbours: int = 10
    penalties: tuple[float, ...] = (0.01, 0.1, 1.0)
    updates: int = 300
    rate: float = 1e-2
    layers: Literal["last", "weighted"] = "last"

    def __post_init__(self) -> None:
        require(len(self.seeds) > 0, "seeds must hold at least one number.")
        require(self.neighbours > 0, f"neighbours must be positive, not {self.neighbours}.")


def main(name: str) -> None:
    """Probe task ``name`` and write its metrics."""
    task = read_frozen_task(name)
    config = params.read(ProbeConfig, f"tasks.{name}.probe")
    probe = probe_head if task.transcribes or task.measures or task.tags else probe_classes
    metrics = {
        origin: {split: tasks.spread_with_bounds([result[split] for result in results]) for split in SPLITS}
        for origin in ("pretrained", "random")
        for results in [[probe(task, config, origin, seed) for seed in config.seeds]]
    }
    training.write_json(METRICS / name / "probe.json", metrics)
    for origin, splits in metrics.items():
        shown = ", ".join(f"{metric} {values['mean']}" for metric, values in splits["test"].items())
        print(f"{name} {origin}: {shown} on test")


def read_frozen_task(name: str) -> Task:
    """Return the task ``name`` without what training drops, hides and blends: a frozen encoder sees everything.

    Nor are weights chosen on valid, where a probe keeps the last ones, and no part of the encoder begins anew.
    """
    task = tasks.read_task(name)
    train = replace(task.train, regularise=WHOLE, hide_tokens=None, hide_channels=None, mix=None, mix_waves=None)
    return replace(task, train=replace(train, choose=None, fresh=()))


def probe_head(task: Task, config: ProbeConfig, origin: str, seed: int) -> dict[str, Scoring]:
    """Return how the task's own head, trained over a frozen encoder, is scored, per split."""
    torch.manual_seed(seed)
    task = tasks.starting_from(task, origin)
    head = replace(task.train.head, freeze=config.updates, layers=config.layers)
    loop = replace(task.train.loop, updates=config.updates)
    optimizer = replace(task.train.optimizer, rate=config.rate)
    probing = replace(task, train=replace(task.train, head=head, loop=loop, optimizer=optimizer))
    model = tasks.first_model(probing, origin, head)
    train(probing, model, seed, f"probe-{task.name}-{origin}")
    return {split: task.scored(model, task.table(split)) for split in SPLITS}


def probe_classes(task: Task, config: ProbeConfig, origin: str, seed: int) -> dict[str, Scoring]:
    """Return how linear probes with few and with all labels and nearest neighbours are scored, per split."""
    torch.manual_seed(seed)
    task = tasks.starting_from(task, origin)
    encoder = task.setup.encoder()
    if origin == "pretrained":
        tasks.load_pretrained(task, encoder)
    last = found = all_features(task, encoder, every_layer=False)
    linear = linear_hits
    if config.layers == "weighted":
        found, linear = all_features(task, encoder, every_layer=True), weighted_hits
    few = few_rows(found["train"][1], config.per_class, seed)
    probes = {
        "linear_few": linear(found, few, config),
        "linear_all": linear(found, np.arange(len(found["train"][1])), config),
        "neighbours": neighbour_hits(last, config),
    }
    return {split: accuracies({name: hits[split] for name, hits in probes.items()}) for split in SPLITS}


def accuracies(hits: Mapping[str, np.ndarray]) -> Scoring:
    """Return how probes are scored in percent, from which rows each of them has right, [rows] bool."""
    count = len(next(iter(hits.values())))
    return Scoring(count, lambda rows: {name: 100 * float(right[rows].mean()) for name, right in hits.items()})


def all_features(task: Task, encoder: Encoder, every_layer: bool) -> Features:
    """Return, per split, features [rows, D], of every layer [rows, layers, D], and labels of the labelled rows."""
    found = {}
    for split in ("train", *SPLITS):
        table = task.table(split)
        features = pooled_features(task.setup, encoder, table, training.pick_device(), every_layer)
        labels = np.array([-1 if label is None else label for label in table.column("label")])
        found[split] = features[labels >= 0], labels[labels >= 0]
    return found


def few_rows(labels: np.ndarray, per_class: int, seed: int) -> np.ndarray:
    """Return ``per_class`` keyed rows of every class."""
    shuffled = key(seed, 0).permutation(len(labels))
    return np.concatenate([shuffled[labels[shuffled] == label][:per_class] for label in np.unique(labels)])


def linear_probe(features: Features, rows: np.ndarray, config: ProbeConfig) -> dict[str, float]:
    """Return the accuracies in percent of ``linear_hits``."""
    return {split: 100 * float(right.mean()) for split, right in linear_hits(features, rows, config).items()}


def linear_hits(features: Features, rows: np.ndarray, config: ProbeConfig) -> Hits:
    """Return what logistic regression on ``rows`` has right, its penalty chosen on the valid split."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x, y = (part[rows] for part in features["train"])
    fitted = [
        make_pipeline(StandardScaler(), LogisticRegression(C=penalty, max_iter=1000)).fit(x, y)
        for penalty in config.penalties
    ]
    best = max(fitted, key=lambda model: model.score(*features["valid"]))
    return {split: best.predict(x) == y for split in SPLITS for x, y in [features[split]]}


def weighted_hits(features: Features, rows: np.ndarray, config: ProbeConfig) -> Hits:
    """Return what logistic regression on ``rows`` of a learnt average of layers has right, its penalty chosen on valid.

    Weights of layers and of classes are learnt together, from the plain average and zero, by L-BFGS; what is penalised
    is that of scikit-learn. Features [rows, layers, D] are standardised by the mean and deviation of ``rows``.
    """
    chosen = torch.from_numpy(features["train"][0][rows])
    mean, deviation = chosen.mean(dim=0), chosen.std(dim=0, correction=0).clamp(min=1e-6)
    data = {
        split: ((torch.from_numpy(x) - mean) / deviation, torch.from_numpy(y)) for split, (x, y) in features.items()
    }
    x, y = (part[rows] for part in data["train"])
    classes = 1 + int(data["train"][1].max())
    fitted = [fit_weighted(x, y, classes, penalty) for penalty in config.penalties]
    best = max(fitted, key=lambda model: float(hits_of(model, *data["valid"]).mean()))
    return {split: hits_of(best, *data[split]) for split in SPLITS}


def fit_weighted(x: Tensor, y: Tensor, classes: int, penalty: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return weights of layers [layers], of classes [classes, D] and biases [classes] for x [rows, layers, D]."""
    layers, weight, bias = torch.zeros(x.shape[1]), torch.zeros(classes, x.shape[2]), torch.zeros(classes)
    parameters = [value.requires_grad_() for value in (layers, weight, bias)]
    optimizer = torch.optim.LBFGS(parameters, max_iter=1000, history_size=10, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        total = penalty * F.cross_entropy(logits(parameters, x), y, reduction="sum") + weight.square().sum() / 2
        total.backward()
        return total

    optimizer.step(loss)
    return layers.detach(), weight.detach(), bias.detach()


def logits(model: Sequence[Tensor], x: Tensor) -> Tensor:
    """Return the logits [rows, classes] of features [rows, layers, D]."""
    layers, weight, bias = model
    return F.linear(torch.einsum("l,rld->rd", layers.softmax(dim=0), x), weight, bias)


def hits_of(model: Sequence[Tensor], x: Tensor, y: Tensor) -> np.ndarray:
    """Return which of x [rows, layers, D] get their class y [rows], bool."""
    return (logits(model, x).argmax(dim=1) == y).numpy()


def neighbour_hits(features: Features, config: ProbeConfig) -> Hits:
    """Return what the vote of the nearest neighbours by the cosine of centred features has right."""
    from sklearn.neighbors import KNeighborsClassifier

    x, y = features["train"]
    model = KNeighborsClassifier(min(config.neighbours, len(x)), metric="cosine").fit(x - x.mean(axis=0), y)
    centre = x.mean(axis=0)
    return {split: model.predict(found - centre) == labels for split in SPLITS for found, labels in [features[split]]}


if __name__ == "__main__":
    runner.run(main)
