"""Frozen features: what an encoder says about a sample, without a gradient."""

import numpy as np
import torch

from d2v_core.data.table import Table
from d2v_core.model.encoder import Encoder
from d2v_core.model.supervised import hidden_states, pool
from d2v_core.setup import Setup

ROWS_AT_ONCE = 32


@torch.no_grad()
def pooled_features(
    setup: Setup, encoder: Encoder, table: Table, device: torch.device, every_layer: bool = False
) -> np.ndarray:
    """Return the mean over tokens of the last layer for every row of ``table``, [rows, D] float32.

    With ``every_layer`` of local features and all blocks, each normalised, [rows, 1 + blocks, D].
    """
    encoder.eval().to(device)
    features = []
    for rows in table.chunks(ROWS_AT_ONCE):
        inputs = setup.modality.batch(rows, None, setup.config)
        inputs = {name: tensor.to(device) for name, tensor in inputs.items()}
        states, encoded = hidden_states(encoder, inputs) if every_layer else ([], encoder(inputs))
        pooled = [pool(x, encoded.padding).float().cpu().numpy() for x in states or [encoded.x]]
        features.append(np.stack(pooled, axis=1) if every_layer else pooled[0])
    return np.concatenate(features)
