"""data2vec for speech, images and text: the learning, without pipelines, codecs or configuration files.

>>> encoder = d2v_core.load("models/pretrain/speech")
>>> features = encoder.embed([wave])
"""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from d2v_core.embedding import Embedder  # torch is imported when it is needed

__version__ = "0.1.0"


def load(folder: str | Path, device: str = "cpu") -> "Embedder":
    """Return the encoder of the run published at ``folder``, on ``device``; raise UserError when there is none."""
    from d2v_core.embedding import Embedder

    return Embedder(Path(folder), device)
