"""Frozen features: what an encoder says about a sample, without a gradient."""

import numpy as np
import torch

from d2v_core.data.table import Table
from d2v_core.model.encoder import Encoder
from d2v_core.model.supervised import pool
from d2v_core.setup import Setup

ROWS_AT_ONCE = 32


@torch.no_grad()
def pooled_features(setup: Setup, encoder: Encoder, table: Table, device: torch.device) -> np.ndarray:
    """Return the mean over tokens of the last layer for every row of ``table``, [rows, D] float32."""
    encoder.eval().to(device)
    features = []
    for rows in table.chunks(ROWS_AT_ONCE):
        inputs = setup.modality.batch(rows, None, setup.config)
        encoded = encoder({name: tensor.to(device) for name, tensor in inputs.items()})
        features.append(pool(encoded.x, encoded.padding).float().cpu().numpy())
    return np.concatenate(features)
