"""The plain alternative to data2vec for text: an encoder that learns to name the pieces hidden from it.

``python -m benchmarks.masked_words [MODALITY [UPDATES [RATE]]]`` reads the same table, trunk, batches and optimizer as
``stages.pretrain``, masks as version 1 does, and publishes ``models/masked_words/<modality>``, from which a task starts
by ``pretrained: models/masked_words/text``. UPDATES and RATE are those of params.yaml unless they are given: an update
costs less than one of version 2, so that the same time has more of them. The output layer does not share the embedding
of tokens.
"""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from d2v_core.config import build
from d2v_core.data.order import follow
from d2v_core.data.table import Table
from d2v_core.model.encoder import Encoder, Inputs
from d2v_core.model.loss import Loss
from d2v_core.model.transformer import initialise
from d2v_core.pretraining import PretrainConfig, Source
from d2v_core.run import write_run
from d2v_core.setup import Setup, make_setup
from d2v_core.training.resume import fit_resumably
from stages import params, runner, training
from stages.paths import MODELS, PLOTS, TABLES


class MaskedWords(nn.Module):
    """An encoder and the layers that name a hidden piece from its contextual token."""

    def __init__(self, setup: Setup) -> None:
        super().__init__()
        width = setup.trunk.width
        self.student: Encoder = setup.encoder()
        vocabulary = setup.config.table.vocabulary
        layers = nn.Linear(width, width), nn.GELU(), nn.LayerNorm(width), nn.Linear(width, vocabulary)
        self.head = nn.Sequential(*layers)
        initialise(self.head, setup.trunk)

    def begin_update(self, update: int) -> None:
        """Do nothing: there is no teacher."""

    def forward(self, inputs: Inputs) -> Loss:
        """Return the cross-entropy summed over the tokens numbered by ``masked``, of ``corrupted`` [B, T] ids."""
        seen = {**inputs, "inputs": inputs["corrupted"]}
        features, padding = self.student.local(seen)
        x = self.student.contextualise(features, padding).x.flatten(0, 1)[inputs["masked"]]
        logits = self.head(x)
        truths: Tensor = inputs["inputs"].flatten()[inputs["masked"]]
        total = F.cross_entropy(logits.float(), truths, reduction="sum")
        return Loss(total, total.new_full((), len(truths)), len(inputs["inputs"]))


def main(name: str = "text", updates: int = 0, rate: float = 0.0) -> None:
    """Pretrain modality ``name`` by masked words and publish the encoder."""
    block = params.modality(name, version=1)
    setup = make_setup(name, block, f"{params.PATH}: modalities.{name}")
    config = build(PretrainConfig, block["pretrain"], f"{params.PATH}: modalities.{name}.pretrain")
    config = replace(
        config,
        loop=replace(config.loop, updates=updates or config.loop.updates),
        optimizer=replace(config.optimizer, rate=rate or config.optimizer.rate),
    )
    seed, folder = params.get("seed"), TABLES / name
    source = Source(setup, config, Table(folder, "train", setup.modality.columns), seed)
    torch.manual_seed(seed)
    model = MaskedWords(setup).to(training.pick_device())
    identity = {**training.identity_of(setup, config, seed, folder), "objective": "masked words"}
    with training.resume_state(f"masked-words-{name}", identity) as state:
        log = training.CsvLog(state / "log.csv")
        steps = fit_resumably(
            model,
            source.batch,
            lambda start: follow(source.lengths, config.batch, seed, start),
            config.loop,
            config.optimizer,
            seed,
            state,
        )
        training.follow(steps, log, f"masked-words-{name}", config.loop.updates)
    weights = {f"encoder.{key}": value for key, value in model.student.state_dict().items()}
    write_run(MODELS / "masked_words" / name, identity, weights)
    training.write_csv(PLOTS / name / "masked_words.csv", log.rows)


if __name__ == "__main__":
    runner.call(main)
