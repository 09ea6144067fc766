"""Self-supervised training of several modalities around one trunk, in turn; resumable at any update."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from d2v_core.data.order import Batch, Place, take_turns
from d2v_core.data.table import Table
from d2v_core.errors import UserError
from d2v_core.model.encoder import Inputs
from d2v_core.model.joint import Joint
from d2v_core.pretraining import PretrainConfig, Source, make_model
from d2v_core.setup import Setup
from d2v_core.training.loop import LoopConfig, Step
from d2v_core.training.optimizer import OptimizerConfig
from d2v_core.training.ranks import ALONE, Ranks
from d2v_core.training.resume import fit_resumably


@dataclass(frozen=True)
class Member:
    """A modality of a joint run: its encoder, its batch and objective, and its table."""

    setup: Setup
    config: PretrainConfig
    table: Table


def pretrain_jointly(
    members: Mapping[str, Member],
    loop: LoopConfig,
    rates: OptimizerConfig,
    seed: int,
    state: Path,
    device: torch.device,
    ranks: Ranks = ALONE,
    stop: Callable[[], bool] = lambda: False,
) -> tuple[Joint, Iterator[Step]]:
    """Return a new model, and the steps in which it trains when they are taken.

    A record is of the member whose batch was the last.

    Resume state is kept in the folder ``state``. Raises UserError when the trunks differ in what they would share.
    """
    check_trunks({name: member.setup for name, member in members.items()})
    torch.manual_seed(seed)
    model = Joint({name: make_model(member.setup, member.config) for name, member in members.items()}).to(device)
    sources = {name: Source(member.setup, member.config, member.table, seed) for name, member in members.items()}

    def make(batch: Batch) -> dict[str, Inputs]:
        return {batch.member: sources[batch.member].batch(batch)}

    def order(start: Place) -> Iterator[tuple[Batch, Place]]:
        budgets = {name: (sources[name].lengths, member.config.batch) for name, member in members.items()}
        return take_turns(budgets, seed, start)

    return model, fit_resumably(model, make, order, loop, rates, seed, state, ranks, stop)


def check_trunks(setups: Mapping[str, Setup]) -> None:
    """Raise UserError unless all trunks have the same blocks; the norms before and after them are each member's own."""
    if len(setups) < 2:
        raise UserError("joint.members must name at least two modalities.")
    (first, blocks), *others = [
        (name, replace(setup.trunk, input_norm=False, final_norm=False)) for name, setup in setups.items()
    ]
    for name, trunk in others:
        different = [key for key, value in vars(blocks).items() if getattr(trunk, key) != value]
        if different:
            raise UserError(f"the trunks of {first} and {name} differ in {different[0]}; set it in joint.trunk.")
