"""Answers of a fine-tuned run: its encoder and head behind one call, for whoever has decoded items."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from d2v_core.data.table import Row
from d2v_core.errors import UserError
from d2v_core.finetuning import logits_of
from d2v_core.model.supervised import HeadConfig, Supervised
from d2v_core.run import fill, read_config, read_weights
from d2v_core.setup import setup_of


class Predictor:
    """A fine-tuned run in evaluation mode; ``kind`` is that of its head, ``symbols`` names its classes or letters."""

    def __init__(self, folder: Path, device: str | torch.device = "cpu") -> None:
        """Load the run at ``folder``; raises UserError when it is no fine-tuned run."""
        self.device, self.run = torch.device(device), read_config(folder)
        self.kind, self.symbols = self.run.get("head"), tuple(self.run.get("symbols") or ())
        if self.kind is None or not self.symbols:
            raise UserError(f"{folder} names no head in its config.json; give a fine-tuned run, or fine-tune it again.")
        self.setup = setup_of(self.run, folder)
        weights = {name: value for name, value in read_weights(folder).items() if not name.startswith("teacher.")}
        head = HeadConfig(self.kind, 0, 0.0, layers="weighted" if "layer_weights" in weights else "last")
        self.model = Supervised(self.setup.encoder(), head, self.setup.trunk.width, len(self.symbols))
        fill(self.model, weights, folder)
        self.model.eval().to(self.device)

    def logits(self, rows: Sequence[Row]) -> list[Tensor]:
        """Return the logits of rows of a table on the CPU, float32: [C] each, or for CTC [real tokens, C]."""
        return logits_of(self.setup, self.model, rows, self.device)
