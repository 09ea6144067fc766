"""One item of a manifest → its decoded content, by the kind of file it is in."""

from functools import lru_cache
from pathlib import Path

import numpy as np

from d2v_core.errors import Dropped
from stages.layouts import AUDIO, IMAGES, Record


def read(record: Record, table: object, vocabulary: Path) -> object:
    """Decode the item of ``record`` for a modality's ``table`` block; raises whatever the codec raises.

    Audio gives mono samples [N] float32 at the table's rate, images [channels, height, width] uint8, text the ids of
    its pieces [tokens] int64, ``.npy`` files their array.
    """
    if record["path"] is None:
        return encode_sentence(record["text"], table.tokens, vocabulary)
    path = Path(record["path"])
    suffix = path.suffix.lower()
    if suffix in AUDIO:
        return read_audio(path, table.sample_rate)
    if suffix in IMAGES:
        return read_image(path, table.channels)
    if suffix == ".npy":
        return np.load(path, allow_pickle=False)
    return encode_document(path.read_text(encoding="utf-8"), vocabulary)


def read_audio(path: Path, rate: int) -> np.ndarray:
    """Return mono samples [N] float32 at ``rate`` Hz, in [-1, 1]."""
    import soundfile
    import soxr

    samples, original = soundfile.read(path, dtype="float32", always_2d=True)
    return soxr.resample(samples.mean(axis=1), original, rate, quality="HQ")


def read_image(path: Path, channels: int) -> object:
    """Return pixels [channels, height, width] uint8, turned upright by the file's EXIF orientation."""
    from torchvision.io import ImageReadMode, decode_image

    mode = ImageReadMode.GRAY if channels == 1 else ImageReadMode.RGB
    return decode_image(str(path), mode=mode, apply_exif_orientation=True)


@lru_cache(maxsize=1)
def pieces(vocabulary: Path) -> object:
    """Return the sentencepiece model of a vocabulary folder."""
    from sentencepiece import SentencePieceProcessor

    return SentencePieceProcessor(model_file=str(vocabulary / "pieces.model"))


def encode_document(text: str, vocabulary: Path) -> np.ndarray:
    """Return the ids [tokens] of a document's paragraphs, each closed by the end symbol."""
    paragraphs = [" ".join(part.split()) for part in text.split("\n\n") if part.strip()]
    ids = pieces(vocabulary).encode(paragraphs, add_eos=True)
    return np.array([token for paragraph in ids for token in paragraph], dtype=np.int64)


def encode_sentence(text: str | None, tokens: int, vocabulary: Path) -> np.ndarray:
    """Return the ids [tokens] of one sentence, cut so that it fits a row, closed by the end symbol."""
    ids = pieces(vocabulary).encode(text or "")
    if not ids:
        raise Dropped("empty", "no words")
    return np.array([*ids[: tokens - 2], pieces(vocabulary).eos_id()], dtype=np.int64)
