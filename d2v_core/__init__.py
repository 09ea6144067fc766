"""data2vec for speech, images and text: the learning, without pipelines, codecs or configuration files.

>>> encoder = d2v_core.load("models/pretrain/speech")
>>> features = encoder.embed([wave])
"""

from pathlib import Path


def load(folder: str | Path, device: str = "cpu") -> "d2v_core.embedding.Embedder":  # noqa: F821 - torch is imported when it is needed
    """Return the encoder of the run published at ``folder``, on ``device``; raise UserError when there is none."""
    from d2v_core.embedding import Embedder

    return Embedder(Path(folder), device)
