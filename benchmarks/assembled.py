"""data2vec 1.0 as one would put it together from ``transformers``: its encoders, a deep copy, a plain loop."""

import copy
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from d2v_core.interop import huggingface
from d2v_core.model.encoder import Inputs
from d2v_core.pretraining import PretrainConfig
from d2v_core.setup import Setup

CLASSES = {"speech": "Data2VecAudioModel", "vision": "Data2VecVisionModel", "text": "Data2VecTextModel"}


class Assembled:
    """A student, a teacher that is a deep copy, a head, and AdamW with its defaults."""

    def __init__(self, setup: Setup, config: PretrainConfig, device: torch.device) -> None:
        """Export a new encoder of ours, so that sizes and switches are the same, and load it with the real class."""
        import transformers

        self.setup, self.config = setup, config
        encoder = setup.encoder()
        weights = {f"encoder.{name}": value for name, value in encoder.state_dict().items()}
        with tempfile.TemporaryDirectory() as folder:
            huggingface.write_folder(Path(folder) / "model", setup.describe(), weights)
            model = getattr(transformers, CLASSES[setup.name]).from_pretrained(Path(folder) / "model")
        self.student = model.train().to(device)
        self.teacher = copy.deepcopy(self.student).requires_grad_(False).eval()
        self.head = setup.modality.head(setup.trunk).to(device)

    def features(self, model: nn.Module, inputs: Inputs, masked: bool) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return the last hidden state and those of all layers, class tokens left out."""
        mask, skip = inputs["mask"] if masked else None, 0
        if self.setup.name == "speech":
            out = model(inputs["inputs"], mask_time_indices=mask, output_hidden_states=True)
        elif self.setup.name == "vision":
            out, skip = model(inputs["inputs"], bool_masked_pos=mask, output_hidden_states=True), 1
        else:
            out = model(inputs["corrupted" if masked else "inputs"], output_hidden_states=True)
        return out.last_hidden_state[:, skip:], tuple(state[:, skip:] for state in out.hidden_states)

    def stepper(self, inputs: Inputs) -> Callable[[], None]:
        """Return a function that takes one training step on ``inputs``."""
        parameters = [*self.student.parameters(), *self.head.parameters()]
        optimizer = torch.optim.AdamW(parameters, lr=1e-4)

        def step() -> None:
            with torch.no_grad():
                for old, new in zip(self.teacher.parameters(), self.student.parameters(), strict=True):
                    old.mul_(0.999).add_(new, alpha=0.001)
                _, layers = self.features(self.teacher, inputs, masked=False)
                chosen = layers[-self.config.objective.targets.layers :]
                targets = sum(F.instance_norm(layer.transpose(1, 2)).transpose(1, 2) for layer in chosen) / len(chosen)
            optimizer.zero_grad()
            predictions = self.head(self.features(self.student, inputs, masked=True)[0][inputs["mask"]])
            F.mse_loss(predictions, targets[inputs["mask"]]).backward()
            nn.utils.clip_grad_norm_(parameters, 5.0)
            optimizer.step()

        return step
