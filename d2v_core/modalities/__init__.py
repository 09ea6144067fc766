"""One file per modality, and everything that modality is. Nothing else in the core names a modality.

A modality module holds:

- ``TableConfig``, ``Config``: frozen dataclasses, the blocks ``table`` and ``model`` of ``modalities.<name>``
- ``columns``: the schema of its table; ``unit``: what lengths and batch budgets are counted in
- ``rows(decoded, table)``: a decoded item → rows of the table, or ``Dropped`` with the reason
- ``amount(row, table)``: how much a row is, in ``unit``
- ``lengths(table, config)``: how much every row is, in ``unit``; ``trainable(lengths, config)``: how much of it
  pretraining uses, 0 for rows that it leaves out
- ``batch(rows, rngs, config)``: rows → tensors; with keyed generators augmented, with ``None`` whole and padded.
  Whether there is padding is told by which tensors there are, so that ``Local`` need not ask a GPU for values
- ``mask(rngs, inputs, config)``: what pretraining hides: ``mask`` [rngs, T], and ``corrupted`` inputs where it hides
  there; ``tokens(inputs, config)``: the real tokens of every sample
- ``Local(config, trunk)``: the module from tensors to tokens (see ``d2v_core.model.encoder``)
- ``head(trunk)``, ``decoder(trunk, config)``: what predicts targets in data2vec 1.0 and 2.0
"""

import importlib
import pkgutil
from types import ModuleType

from d2v_core.config import check_keys


def get(name: str) -> ModuleType:
    """Return the module of the modality ``name``; raise UserError, with the nearest name, when there is none."""
    known = [module.name for module in pkgutil.iter_modules(__path__)]
    check_keys({name: None}, known, "modalities")
    return importlib.import_module(f"{__name__}.{name}")
