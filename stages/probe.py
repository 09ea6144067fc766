"""Stage ``probe``: how much a frozen encoder knows, pretrained beside random weights of the same shape.

Classification: logistic regression and nearest neighbours on mean-pooled features. Transcripts and numbers: the task's
own head.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch

from d2v_core.config import require
from d2v_core.data.order import key
from d2v_core.data.table import Table
from d2v_core.evaluation.features import pooled_features
from d2v_core.model.encoder import Encoder
from stages import params, runner, tasks, training
from stages.finetune import train
from stages.paths import METRICS
from stages.tasks import Task

Features = Mapping[str, tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class ProbeConfig:
    """The block ``probe`` of a task.

    ``seeds`` draw the random encoders and the few labels; ``per_class`` is how many few are; ``neighbours`` and the
    inverse ``penalties`` to choose from on the valid split are for classes, ``updates`` and ``rate`` for other answers.
    """

    seeds: tuple[int, ...]
    per_class: int = 10
    neighbours: int = 10
    penalties: tuple[float, ...] = (0.01, 0.1, 1.0)
    updates: int = 300
    rate: float = 1e-2

    def __post_init__(self) -> None:
        require(len(self.seeds) > 0, "seeds must hold at least one number.")
        require(self.neighbours > 0, f"neighbours must be positive, not {self.neighbours}.")


def main(name: str) -> None:
    """Probe task ``name`` and write its metrics."""
    task = read_frozen_task(name)
    config = params.read(ProbeConfig, f"tasks.{name}.probe")
    probe = probe_head if task.transcribes or task.measures else probe_classes
    metrics = {
        origin: {split: tasks.spread_over_seeds([result[split] for result in results]) for split in ("valid", "test")}
        for origin in ("pretrained", "random")
        for results in [[probe(task, config, origin, seed) for seed in config.seeds]]
    }
    training.write_json(METRICS / name / "probe.json", metrics)
    for origin, splits in metrics.items():
        shown = ", ".join(f"{metric} {values['mean']}" for metric, values in splits["test"].items())
        print(f"{name} {origin}: {shown} on test")


def read_frozen_task(name: str) -> Task:
    """Return the task ``name`` without what fine-tuning drops and hides: a frozen encoder sees everything."""
    task = tasks.read_task(name)
    return replace(task, train=replace(task.train, regularise=None, hide_tokens=None, hide_channels=None))


def probe_head(task: Task, config: ProbeConfig, origin: str, seed: int) -> dict[str, dict[str, float]]:
    """Return the scores of the task's own head, trained over a frozen encoder, per split."""
    torch.manual_seed(seed)
    task = tasks.starting_from(task, origin)
    model = tasks.first_model(task, origin, replace(task.train.head, freeze=config.updates))
    loop = replace(task.train.loop, updates=config.updates)
    optimizer = replace(task.train.optimizer, rate=config.rate)
    probing = replace(task, train=replace(task.train, loop=loop, optimizer=optimizer))
    train(probing, model, seed, f"probe-{task.name}-{origin}")
    scores = {}
    for split in ("valid", "test"):
        table = task.table(split)
        scores[split] = task.scores(task.truths(table), task.answers(model, table))
    return scores


def probe_classes(task: Task, config: ProbeConfig, origin: str, seed: int) -> dict[str, dict[str, float]]:
    """Return the accuracies of linear probes with few and with all labels, and of nearest neighbours, per split."""
    torch.manual_seed(seed)
    task = tasks.starting_from(task, origin)
    encoder = task.setup.encoder()
    if origin == "pretrained":
        tasks.load_pretrained(task, encoder)
    features = {split: labelled_features(task, encoder, task.table(split)) for split in ("train", "valid", "test")}
    few = few_rows(features["train"][1], config.per_class, seed)
    probes = {
        "linear_few": linear_probe(features, few, config),
        "linear_all": linear_probe(features, np.arange(len(features["train"][1])), config),
        "neighbours": neighbour_probe(features, config),
    }
    return {split: {name: score[split] for name, score in probes.items()} for split in ("valid", "test")}


def labelled_features(task: Task, encoder: Encoder, table: Table) -> tuple[np.ndarray, np.ndarray]:
    """Return features [rows, D] and labels [rows] of the labelled rows of ``table``."""
    features = pooled_features(task.setup, encoder, table, training.pick_device())
    labels = np.array([-1 if label is None else label for label in table.column("label")])
    return features[labels >= 0], labels[labels >= 0]


def few_rows(labels: np.ndarray, per_class: int, seed: int) -> np.ndarray:
    """Return ``per_class`` keyed rows of every class."""
    shuffled = key(seed, 0).permutation(len(labels))
    return np.concatenate([shuffled[labels[shuffled] == label][:per_class] for label in np.unique(labels)])


def linear_probe(features: Features, rows: np.ndarray, config: ProbeConfig) -> dict[str, float]:
    """Return accuracies of logistic regression on ``rows``, its penalty chosen on the valid split."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x, y = (part[rows] for part in features["train"])
    fitted = [
        make_pipeline(StandardScaler(), LogisticRegression(C=penalty, max_iter=1000)).fit(x, y)
        for penalty in config.penalties
    ]
    best = max(fitted, key=lambda model: model.score(*features["valid"]))
    return {split: 100 * float(best.score(*features[split])) for split in ("valid", "test")}


def neighbour_probe(features: Features, config: ProbeConfig) -> dict[str, float]:
    """Return accuracies of the vote of the nearest neighbours by the cosine of centred features."""
    from sklearn.neighbors import KNeighborsClassifier

    x, y = features["train"]
    model = KNeighborsClassifier(min(config.neighbours, len(x)), metric="cosine").fit(x - x.mean(axis=0), y)
    return {
        split: 100 * float(model.score(features[split][0] - x.mean(axis=0), features[split][1]))
        for split in ("valid", "test")
    }


if __name__ == "__main__":
    runner.run(main)
