"""Stage ``joint``: tables of several modalities → encoders around one trunk."""

from collections.abc import Mapping
from dataclasses import asdict

from d2v_core.config import build, check_keys
from d2v_core.data import table as tables
from d2v_core.data.files import publish_folder
from d2v_core.errors import UserError
from d2v_core.joint_pretraining import Member, pretrain_jointly
from d2v_core.pretraining import PretrainConfig
from d2v_core.run import write_run
from d2v_core.setup import make_setup
from d2v_core.training.loop import LoopConfig
from d2v_core.training.optimizer import OptimizerConfig
from stages import params, runner, training
from stages.paths import METRICS, MODELS, PLOTS, TABLES
from stages.pretrain import summary, weights


def main(name: str) -> None:
    """Pretrain the joint run ``name`` and publish ``models/joint/<name>/<modality>``, its metrics and its curves."""
    where = f"joint.{name}"
    members = {modality: read_member(modality, where) for modality in read_names(name)}
    rates, loop = params.read(OptimizerConfig, f"{where}.optimizer"), params.read(LoopConfig, f"{where}.loop")
    seed = params.get("seed")
    identity = {
        "optimizer": asdict(rates),
        "loop": asdict(loop),
        "seed": seed,
        "members": {modality: describe(modality, member) for modality, member in members.items()},
    }
    place, stop = training.gather(), training.asked_to_stop()
    with training.resume_state(f"joint-{name}", identity, place) as state:
        log = training.CsvLog(state / "log.csv")
        device = training.pick_device()
        model, steps = pretrain_jointly(members, loop, rates, seed, state, device, place, stop)
        training.follow(steps, log, f"joint-{name}", loop.updates, place)
        if place.first:
            with publish_folder(MODELS / "joint" / name) as folder:
                for modality, member in model.members.items():
                    described = {**identity["members"][modality], "joint": name, "updates": loop.updates, "seed": seed}
                    write_run(folder / modality, described, weights(member))
            training.write_csv(PLOTS / name / "pretrain.csv", log.rows)
            training.write_json(METRICS / name / "pretrain.json", summary(log.rows))


def read_names(name: str) -> list[str]:
    """Return the modalities of the joint run ``name``; raise UserError for an unknown one or a name that is taken."""
    known = params.get("modalities", Mapping)
    if name in known:
        raise UserError(f"{params.PATH}: joint.{name} has the name of a modality; choose another one.")
    names = params.get(f"joint.{name}.members", list)
    check_keys(dict.fromkeys(names), known, f"{params.PATH}: joint.{name}.members")
    return names


def read_member(modality: str, where: str) -> Member:
    """Return a member of the joint run at ``where``: its modality with the common trunk laid over its own."""
    trunk = {"model": {"trunk": params.get(f"{where}.trunk", Mapping)}}
    block = params.merge(params.modality(modality), trunk)
    key = f"{params.PATH}: modalities.{modality}"
    setup = make_setup(modality, block, key)
    config = build(PretrainConfig, block["pretrain"], f"{key}.pretrain")
    if config.start:
        raise UserError(f"{key}.pretrain.start must be null in a joint run, whose members share blocks.")
    table = tables.Table(TABLES / modality, "train", setup.modality.columns, setup.config.table)
    return Member(setup, config, table)


def describe(modality: str, member: Member) -> dict:
    """Return the plain values that a member's run depends on."""
    digest = tables.digest(TABLES / modality)
    return {**member.setup.describe(), "pretrain": asdict(member.config), "table_digest": digest}


if __name__ == "__main__":
    runner.run(main)
