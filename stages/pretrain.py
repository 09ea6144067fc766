"""Stage ``pretrain``: a table → an encoder that nobody labelled anything for.

Needs neither DVC nor Prefect nor a codec: ``python -m stages.pretrain speech`` runs on a bare GPU machine.
"""

import math

from d2v_core.config import build
from d2v_core.data import table as tables
from d2v_core.errors import UserError
from d2v_core.model.data2vec import Data2Vec
from d2v_core.pretraining import PretrainConfig, pretrain
from d2v_core.run import write_run
from d2v_core.starting import folder_of
from stages import params, runner, training
from stages.paths import METRICS, MODELS, PLOTS, TABLES


def main(name: str) -> None:
    """Pretrain modality ``name`` and publish ``models/pretrain/<name>``, its metrics and its curves."""
    setup = training.read_setup(name)
    config = build(PretrainConfig, params.modality(name).get("pretrain"), f"{params.PATH}: modalities.{name}.pretrain")
    seed = params.get("seed")
    check_start(name, config.start)
    table = tables.Table(TABLES / name, "train", setup.modality.columns, setup.config.table)
    identity = training.identity_of(setup, config, seed, TABLES / name)
    place, stop = training.gather(), training.asked_to_stop()
    with training.resume_state(f"pretrain-{name}", identity, place) as state:
        log = training.CsvLog(state / "log.csv")
        device = training.pick_device()
        model, steps = pretrain(setup, config, table, seed, state, device, place, stop)
        training.follow(steps, log, f"pretrain-{name}", config.loop.updates, place)
        if place.first:
            write_run(MODELS / "pretrain" / name, {**identity, "updates": config.loop.updates}, weights(model))
            training.write_csv(PLOTS / name / "pretrain.csv", log.rows)
            training.write_json(METRICS / name / "pretrain.json", summary(log.rows))


def check_start(name: str, start: str | None) -> None:
    """Raise UserError when modality ``name`` would ``start`` from the run that it replaces."""
    folder = MODELS / "pretrain" / name
    if start and folder_of(start).resolve() == folder.resolve():
        raise UserError(f"{name}: pretrain.start names {folder}, which this run replaces; copy it and name the copy.")


def weights(model: Data2Vec) -> dict:
    """Return the tensors worth keeping: the student's encoder, its head, and the teacher's encoder."""
    parts = {"encoder.": model.student, "head.": model.head, "teacher.": model.teacher.encoder}
    return {prefix + name: value for prefix, part in parts.items() for name, value in part.state_dict().items()}


def summary(rows: list[dict[str, str]]) -> dict:
    """Return the last record, and the smallest spread of the targets after the warm-up: did it collapse?"""
    last = {name: float(value) for name, value in rows[-1].items()}
    spreads = [float(row["target_spread"]) for row in rows[len(rows) // 4 :]]
    numbers = {**last, "update": int(last["update"]), "least_target_spread": min(spreads)}
    return {name: value for name, value in numbers.items() if not math.isnan(value)}


if __name__ == "__main__":
    runner.run(main)
