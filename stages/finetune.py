"""Stage ``finetune``: a labelled table → models for a task, from the pretrained encoder or from scratch.

Both origins share everything but the first weights: rows, order, schedule and seeds.
"""

import torch

from d2v_core.data.files import publish_folder
from d2v_core.errors import UserError
from d2v_core.finetuning import finetune
from d2v_core.model.supervised import Supervised
from d2v_core.run import write_run
from stages import runner, tasks, training
from stages.paths import PLOTS
from stages.pretrain import describe
from stages.progress import track
from stages.tasks import ORIGINS, Task


def main(name: str, origin: str) -> None:
    """Fine-tune task ``name`` with every seed and publish ``models/finetune/<name>/<origin>`` and its curves."""
    if origin not in ORIGINS:
        raise UserError(f"the origin of the weights must be one of {', '.join(ORIGINS)}, not {origin!r}.")
    task = tasks.read_task(name)
    home = tasks.run_folder(name, origin, 0).parent
    records = []
    with publish_folder(home) as folder:
        for seed in task.train.seeds:
            model = start(task, origin, seed)
            records += [{"seed": seed, **record} for record in train(task, model, seed, f"finetune-{name}-{origin}")]
            run = {**describe(task.setup), "task": name, "origin": origin, "seed": seed, "symbols": task.symbols}
            write_run(folder / f"seed-{seed}", run, model.state_dict())
    training.write_csv(PLOTS / name / f"{origin}.csv", [{key: f"{value:.6g}" for key, value in r.items()} for r in records])


def start(task: Task, origin: str, seed: int) -> Supervised:
    """Return the model before its first update."""
    torch.manual_seed(seed)
    return tasks.pretrained_model(task) if origin == "pretrained" else task.model(task.setup)


def train(task: Task, model: Supervised, seed: int, label: str) -> list[dict[str, float]]:
    """Train ``model`` in place and return its records."""
    steps = finetune(task.setup, task.train, model, task.table("train"), task.labels, seed, training.pick_device())
    shown = track(steps, f"{label}-{seed}", task.train.loop.updates, unit="updates")
    return [record for record in shown if record]


if __name__ == "__main__":
    runner.run(main)
