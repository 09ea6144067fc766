"""One item of a manifest → its decoded content, by the kind of file it is in."""

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from d2v_core.errors import Dropped
from d2v_core.modalities.text import END
from stages import tokenizer
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

    with soundfile.SoundFile(path) as file:
        samples, original = file.read(dtype="float32", always_2d=True), file.samplerate
        if len(samples) < file.frames - original / 10 or header_promises_more(file.extra_info):
            raise Dropped("cut off", f"{len(samples)} samples are left")
    return soxr.resample(samples.mean(axis=1), original, rate, quality="HQ")


def header_promises_more(log: str) -> bool:
    """Tell from libsndfile's log whether a WAV or AIFF file is shorter than its header says.

    A writer's common slip of 8 bytes is not counted, nor are sizes that say "unknown".
    """
    sizes = re.search(r"^(?:RIFF|FORM) *: (\d+) \(should be (\d+)\)", log, re.MULTILINE)
    return sizes is not None and int(sizes[1]) > int(sizes[2]) + 8


def read_image(path: Path, channels: int) -> object:
    """Return pixels [channels, height, width] uint8, turned upright by the file's EXIF orientation.

    GIF and WebP come as RGB whatever is asked for; of an animation it is the first frame.
    """
    import torch
    from torchvision.io import ImageReadMode, decode_image
    from torchvision.transforms.v2.functional import to_dtype

    mode = ImageReadMode.GRAY if channels == 1 else ImageReadMode.RGB
    image = decode_image(str(path), mode=mode, apply_exif_orientation=True)
    return to_dtype(image[0] if image.ndim == 4 else image, torch.uint8, scale=True)


def encode(texts: Sequence[str], vocabulary: Path) -> list[list[int]]:
    """Return the ids of the pieces of every text, by the tokenizer or else the sentencepiece model of a vocabulary."""
    if (vocabulary / tokenizer.FILE).exists():
        published = fresh(tokenizer.load, vocabulary / tokenizer.FILE)
        return [published.encode(text, add_special_tokens=False).ids for text in texts]
    return pieces(vocabulary).encode(list(texts))


def pieces(vocabulary: Path) -> object:
    """Return the sentencepiece model of a vocabulary folder."""
    return fresh(load_pieces, vocabulary / "pieces.model")


def fresh(load: Callable[[Path], object], path: Path) -> object:
    """Return what ``load`` makes of a file, kept until another file is asked for or this one changes."""
    path = path.resolve()
    return kept(load, path, path.stat().st_mtime_ns)


@lru_cache(maxsize=1)
def kept(load: Callable[[Path], object], path: Path, modified: int) -> object:
    """Return what ``load`` makes of a file; ``modified`` tells it from one that was there before."""
    return load(path)


def load_pieces(path: Path) -> object:
    """Return the sentencepiece model in a file."""
    from sentencepiece import SentencePieceProcessor

    return SentencePieceProcessor(model_file=str(path))


def encode_document(text: str, vocabulary: Path) -> np.ndarray:
    """Return the ids [tokens] of a document's paragraphs, each closed by the end symbol."""
    paragraphs = [" ".join(part.split()) for part in re.split(r"\n\s*\n", text) if part.strip()]
    ids = encode(paragraphs, vocabulary)
    return np.array([token for paragraph in ids for token in [*paragraph, END]], dtype=np.int64)


def encode_sentence(text: str | None, tokens: int, vocabulary: Path) -> np.ndarray:
    """Return the ids [tokens] of one sentence, cut so that it fits a row, closed by the end symbol."""
    (ids,) = encode([text or ""], vocabulary)
    if not ids:
        raise Dropped("empty", "no words")
    return np.array([*ids[: tokens - 2], END], dtype=np.int64)
