"""Features in three lines: a published encoder that takes decoded items, one or many."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from d2v_core.run import fill, read_config, read_weights
from d2v_core.setup import setup_of


class Embedder:
    """The student's encoder of a run folder, in evaluation mode."""

    def __init__(self, folder: Path, device: str | torch.device = "cpu") -> None:
        """Load the run at ``folder``; raises UserError when it is no run or does not fit this version."""
        self.device = torch.device(device)
        self.setup = setup_of(read_config(folder), folder)
        self.encoder = self.setup.encoder().eval()
        fill(self.encoder, read_weights(folder, "encoder."), folder)
        self.encoder.to(self.device)

    @torch.no_grad()
    def embed(self, items: Sequence) -> list[Tensor]:
        """Return the contextual features [T, D] float32 of every item, on the encoder's device.

        An item is what the modality's ``rows`` takes: mono samples [N] float32 at the table's rate, an image
        [channels, height, width] uint8, or the ids of at most one block of text. Raises Dropped for an item that
        could not become a row of the table either.
        """
        modality, config = self.setup.modality, self.setup.config
        rows = [modality.rows(item, config.table)[0] for item in items]
        inputs = modality.batch(rows, None, config)
        encoded = self.encoder({name: tensor.to(self.device) for name, tensor in inputs.items()})
        if encoded.padding is None:
            return list(encoded.x)
        return [x[~padding] for x, padding in zip(encoded.x, encoded.padding, strict=True)]
