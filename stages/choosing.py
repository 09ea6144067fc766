"""Fine-tuning that keeps the weights with the best score on ``valid`` (reference 6.1, 6.2, 6.4), not the last ones.

The best weights so far and all scores lie beside the checkpoint and are written before it: a run that goes on from an
older checkpoint scores the same updates again, and ends with the same choice.
"""

import math
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch

from d2v_core.data.files import publish
from d2v_core.errors import UserError
from d2v_core.finetuning import ChooseConfig, predict
from d2v_core.model.supervised import Supervised
from d2v_core.training.checkpoint import loading, room_for
from d2v_core.training.loop import Step
from d2v_core.training.ranks import Ranks
from stages.intervals import Scores
from stages.metrics import lower_is_better
from stages.tasks import Task
from stages.training import CsvLog

SPLIT = "valid"
BEST, FILE = "best.pt", "valid.csv"


@dataclass(frozen=True)
class Choice:
    """The update after which the weights were best, and the scores of all updates that were tried, as text."""

    update: int
    scores: list[dict[str, str]]


def check(task: Task, choose: ChooseConfig) -> None:
    """Raise UserError unless ``valid`` has labels, and the task the metrics that ``choose`` names."""
    table, key = task.table(SPLIT), f"tasks.{task.name}.train.choose"
    if not any(truth.strip() for truth in task.truths(table)):
        raise UserError(f"{task.folder} has no labels in its {SPLIT!r} split to choose by; set {key} to null.")
    blank = torch.zeros((1, len(task.symbols)) if task.transcribes else len(task.symbols))
    known = task.scoring(table, [blank] * len(table), task.words([blank] * len(table))).once()
    for metric in choose.metrics:
        if metric not in known:
            raise UserError(f"{key}.metrics must be among {', '.join(known)}, not {metric!r}.")


def scored(
    steps: Iterator[Step], task: Task, choose: ChooseConfig, model: Supervised, state: Path, place: Ranks
) -> Iterator[Step]:
    """Pass on the ``steps`` that train ``model``; score it when it is due, and keep what is best in ``state``.

    Every process scores, so that none has to wait for another one; the first one writes. Of equal scores the later one
    is best, as in the reference's code.
    """
    log, last = CsvLog(state / FILE), task.train.loop.updates
    best = read_best(state)["worth"] if place.first and (state / BEST).exists() else -math.inf
    for step in steps:
        if step.update == last or (step.update >= choose.after and step.update % choose.every == 0):
            scores = scores_of(task, model)
            worth = worth_of(scores, choose)
            if place.first:
                log.write({"update": step.update, **scores})
                if worth >= best:
                    best = worth
                    keep(state, model, step.update, worth)
        yield step


def scores_of(task: Task, model: Supervised) -> Scores:
    """Return the scores of ``model`` in training on ``valid``, as the stage ``evaluate`` will find them."""
    table, device, learning = task.table(SPLIT), next(model.parameters()).device, model.training
    eager = torch.compiler.set_stance("force_eager") if task.train.loop.compile else nullcontext()
    with eager:
        logits = list(predict(task.finetuned, model, table, device))
    model.train(learning)
    return task.scoring(table, logits, task.words(logits)).once()


def worth_of(scores: Scores, choose: ChooseConfig) -> float:
    """Return the mean of the metrics that count, errors below zero: more is better; what is no number is worst."""
    names = choose.metrics or (next(iter(scores)),)
    values = [-scores[name] if lower_is_better(name) else scores[name] for name in names]
    return -math.inf if math.isnan(sum(values)) else sum(values) / len(values)


def keep(state: Path, model: Supervised, update: int, worth: float) -> None:
    """Publish the weights of ``model`` as the best so far."""
    content = {"update": update, "worth": worth, "weights": model.state_dict()}
    room = room_for(content, state, "the best weights", "or set D2V_STATE to another disk")
    with room, publish(state / BEST) as temporary:
        torch.save(content, temporary)


def read_best(state: Path) -> dict:
    """Return the best weights so far with their update and worth."""
    with loading(state):
        return torch.load(state / BEST, map_location="cpu", weights_only=True)


def take_best(state: Path, model: Supervised) -> Choice:
    """Give ``model`` the best weights in ``state``, and return how they were chosen."""
    best = read_best(state)
    model.load_state_dict(best["weights"])
    return Choice(best["update"], CsvLog(state / FILE).rows)
