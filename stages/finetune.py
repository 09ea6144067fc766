"""Stage ``finetune``: a labelled table → models for a task, from the pretrained encoder or from scratch.

Both origins share everything but the first weights: rows, order, schedule and seeds.
"""

import hashlib
from contextlib import nullcontext
from dataclasses import asdict

import torch

from d2v_core.data.files import publish_folder
from d2v_core.data.table import digest
from d2v_core.errors import UserError
from d2v_core.finetuning import finetune
from d2v_core.model.supervised import Supervised
from d2v_core.run import write_run
from d2v_core.training.ranks import ALONE, Ranks
from stages import choosing, runner, tasks, training
from stages.choosing import Choice
from stages.paths import PLOTS
from stages.tasks import ORIGINS, Task


def main(name: str, origin: str) -> None:
    """Fine-tune task ``name`` with every seed and publish ``models/finetune/<name>/<origin>`` and its curves."""
    if origin not in ORIGINS:
        raise UserError(f"the origin of the weights must be one of {', '.join(ORIGINS)}, not {origin!r}.")
    task = tasks.starting_from(tasks.read_task(name), origin)
    if task.train.choose:
        choosing.check(task, task.train.choose)
    place = training.gather(task.train.loop.accumulate > 1)
    records = []
    with publish_folder(tasks.run_folder(name, origin, 0).parent) if place.first else nullcontext() as folder:
        for seed in task.train.seeds:
            torch.manual_seed(seed)
            model = tasks.first_model(task, origin)
            rows, choice = train(task, model, seed, f"finetune-{name}-{origin}", place)
            records += [{"seed": seed, **row} for row in rows]
            run = {**task.finetuned.describe(), "task": name, "origin": origin, "seed": seed}
            run |= {"head": task.train.head.kind, "symbols": task.symbols}
            run |= {"chosen_update": choice.update} if choice else {}
            if folder:
                write_run(folder / f"seed-{seed}", run, model.state_dict())
            if folder and choice:
                training.write_csv(folder / f"seed-{seed}" / choosing.FILE, choice.scores)
                print(f"{name} {origin} seed {seed}: the weights of update {choice.update} are the best on valid")
    if place.first:
        training.write_csv(PLOTS / name / f"{origin}.csv", records)


def train(
    task: Task, model: Supervised, seed: int, label: str, place: Ranks = ALONE
) -> tuple[list[dict[str, str]], Choice | None]:
    """Train ``model`` in place, going on where a stopped run of the same kind was.

    Return the first rank's records; where the task chooses, it also has the best weights and how they were chosen.
    """
    model.to(training.pick_device())
    identity = {
        **task.finetuned.describe(),
        "train": asdict(task.train),
        "seed": seed,
        "table_digest": digest(task.folder),
        "weights": weights_digest(model),
    }
    stop = training.asked_to_stop()
    with training.resume_state(label, identity, place) as state:
        log = training.CsvLog(state / "log.csv")
        steps = finetune(task.setup, task.train, model, task.table("train"), task.labels, seed, state, place, stop)
        if task.train.choose:
            steps = choosing.scored(steps, task, task.train.choose, model, state, place)
        training.follow(steps, log, f"{label}-{seed}", task.train.loop.updates, place)
        choice = choosing.take_best(state, model) if task.train.choose and place.first else None
    return log.rows, choice


def weights_digest(model: Supervised) -> str:
    """Return a digest of the weights from which the training starts."""
    content = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        content.update(name.encode())
        content.update(tensor.cpu().numpy().tobytes())
    return content.hexdigest()


if __name__ == "__main__":
    runner.run(main)
