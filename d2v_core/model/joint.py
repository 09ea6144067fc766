"""Several modalities around one trunk: what is local to each stays its own, the transformer blocks are shared.

The reference has room for it: a modality encoder per modality and one list of blocks (8.4).
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import cast

from torch import nn

from d2v_core.model.data2vec import Data2Vec
from d2v_core.model.encoder import Inputs
from d2v_core.model.loss import Loss

BLOCKS = "trunk.blocks."


class Joint(nn.Module):
    """Members that learn in turn; student blocks are one list, and so are teacher blocks.

    The teacher's blocks follow the schedule of the first member's teacher.
    """

    def __init__(self, members: Mapping[str, Data2Vec]) -> None:
        super().__init__()
        self.members = cast(Mapping[str, Data2Vec], nn.ModuleDict(members))
        first, *others = self.members.values()
        for other in others:
            other.student.trunk.blocks = first.student.trunk.blocks
            other.teacher.encoder.trunk.blocks = first.teacher.encoder.trunk.blocks
            other.teacher.elsewhere = (BLOCKS,)
        self.decay = first.decay

    def begin_update(self, update: int) -> None:
        """Refresh every part of the teachers exactly once."""
        for member in self.members.values():
            member.begin_update(update)

    def forward(self, inputs: Mapping[str, Inputs]) -> Loss:
        """Return the loss of the one member that ``inputs`` holds a batch of."""
        ((name, batch),) = inputs.items()
        self.decay = self.members[name].decay
        return replace(self.members[name](batch), member=list(self.members).index(name))
