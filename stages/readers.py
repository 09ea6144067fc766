"""One item of a manifest → its decoded content, by what a modality's table asks for.

Memory is bounded whatever a file holds: headers are read first, audio is decoded in blocks and no further than the
table's longest row, texts are cut into stretches.
"""

import gzip
import io
import math
import re
import zlib
from array import array
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from d2v_core.errors import Dropped
from d2v_core.modalities.text import END
from stages import pictures, sources, tokenizer
from stages.archives import unpacked
from stages.layouts import Record

T = TypeVar("T")

BLOCK = 2**24  # samples decoded at a time; MP3 loses some at every stop, and a row is far shorter
UNKNOWN = 2**62  # samples: what libsndfile says of a stream without a length is above this
STRETCH = 2**20  # characters of a text encoded at a time
LEFT_OUT = "\x0b\x1c\x1d\x1e\x1f\x85"  # white space that sentencepiece deletes
COMPRESSED = (".gz", ".zst")


def read(record: Record, table: Any, vocabulary: Path) -> object:
    """Decode the item of ``record`` for a modality's ``table`` block; raises Dropped or whatever the codec raises.

    Audio gives mono samples [N] float32 at the table's rate, images [channels, height, width] uint8, text the ids of
    its pieces [tokens] int64, ``.npy`` files their array.
    """
    location, errors = record["path"], record.get("encoding_errors") or "drop"
    number(record)
    if location is None:
        texts = [clean(text, errors) for name in ("text", "pair") if (text := record.get(name)) is not None]
        return encode_sentences(texts, table.tokens, vocabulary)
    if sources.name_of(location).endswith(".npy"):
        return np.load(io.BytesIO(sources.open_bytes(location)), allow_pickle=False)
    if hasattr(table, "sample_rate"):
        return decode_audio(location, table.sample_rate, table.max_seconds)
    if hasattr(table, "tokens"):
        return encode_document(read_text(location, errors), vocabulary)
    return read_image(location, table.channels)


def number(record: Record) -> float | None:
    """Return the score of ``record``, None if it has none; raise Dropped when it is no finite number."""
    given = record.get("score")
    if given is None:
        return None
    try:
        score = float(given)
    except ValueError:
        score = math.nan
    if not math.isfinite(score):
        raise Dropped("not finite", f"score {given!r} is not a number")
    return score


def read_audio(path: Path | str, rate: int) -> np.ndarray:
    """Return mono samples [N] float32 at ``rate`` Hz, in [-1, 1], of the audio at a path or location."""
    return decode_audio(str(path), rate, math.inf)


def decode_audio(location: str, rate: int, longest: float) -> np.ndarray:
    """Return mono samples [N] float32 at ``rate`` Hz; raise Dropped above ``longest`` seconds, and for silence."""
    try:
        import soundfile
        import soxr
    except OSError as error:  # soundfile says so where there is no libsndfile
        raise ImportError(f"soundfile cannot be used ({error})", name="soundfile") from None

    path = sources.local_path(location)
    with soundfile.SoundFile(sources.open_file(location) if path is None else regular(path)) as file:
        original, most = file.samplerate, longest * file.samplerate
        promised = file.frames if file.frames < UNKNOWN else 0
        if promised > 2 * most + original:  # a promise may be wrong, so it is given some room
            raise Dropped("duration", f"its header says {promised / original:.2f} s, above {longest} s")
        with np.errstate(all="ignore"):  # what is not finite is dropped with its row
            samples = mono(file, most)
        if len(samples) < promised - original / 10 or header_promises_more(file.extra_info):
            raise Dropped("cut off", f"{len(samples)} samples are left")
    if len(samples) and samples[0] == samples[-1] and math.isfinite(samples[0]) and not np.ptp(samples):
        raise Dropped("silent", "all samples are equal")
    return samples if original == rate else soxr.resample(samples, original, rate, quality="HQ")


def regular(path: Path) -> str:
    """Return ``path`` for libsndfile; raise Dropped for a device or a pipe, which would be waited for."""
    if not path.is_file():
        raise Dropped("unreadable", "not a regular file, or not there")
    return str(path)


def mono(file: Any, most: float) -> np.ndarray:
    """Return the mean [N] float32 of a file's channels, decoded in blocks; raise Dropped above ``most`` samples."""
    blocks, count, enough = [], 0, most + file.samplerate
    size = max(1, int(min(BLOCK // file.channels, enough + 1)))
    while len(block := file.read(size, dtype="float32", always_2d=True)):
        blocks.append(block[:, 0] if file.channels == 1 else block.mean(axis=1))
        count += len(block)
        if count > enough:
            raise Dropped("duration", f"more than {most / file.samplerate:g} s")
    return blocks[0] if len(blocks) == 1 else np.concatenate([np.zeros(0, np.float32), *blocks])


def header_promises_more(log: str) -> bool:
    """Tell from libsndfile's log whether a WAV or AIFF file is shorter than its header says.

    A writer's common slip of 8 bytes is not counted, nor are sizes that say "unknown".
    """
    sizes = re.search(r"^(?:RIFF|FORM) *: (\d+) \(should be (\d+)\)", log, re.MULTILINE)
    return sizes is not None and int(sizes[1]) > int(sizes[2]) + 8


def read_image(path: Path | str, channels: int) -> object:
    """Return pixels [channels, height, width] uint8 of the image at a path or location, turned upright by its EXIF.

    GIF and WebP come as RGB whatever is asked for; of an animation it is the first frame. Raises Dropped for an image
    that is too large to be decoded.
    """
    import torch
    from torchvision.io import ImageReadMode, decode_image
    from torchvision.transforms.v2.functional import to_dtype

    data = sources.open_bytes(str(path))
    pictures.check(data)
    mode = ImageReadMode.GRAY if channels == 1 else ImageReadMode.RGB
    encoded = torch.frombuffer(bytearray(pictures.still(data)), dtype=torch.uint8)
    image = decode_image(encoded, mode=mode, apply_exif_orientation=True)
    image = image[0] if image.ndim == 4 else image
    return image if image.dtype == torch.uint8 else to_dtype(image, torch.uint8, scale=True)


def read_text(location: str, errors: str) -> str:
    """Return the text at a location, unpacked by its suffix; raise Dropped when it is too large or not text."""
    return clean(decoded_text(location, errors), errors)


def decoded_text(location: str, errors: str) -> str:
    """Return the text at a location as it is there, with U+FFFD for what is not UTF-8 unless that is an error."""
    data = sources.open_bytes(location)
    if sources.name_of(location).endswith(COMPRESSED):
        try:
            data = unpacked(location, lambda: io.BytesIO(data)).read(sources.LARGEST + 1)
        except (EOFError, zlib.error, gzip.BadGzipFile, OSError) as error:
            raise Dropped("unreadable", f"cannot be unpacked ({error})") from None
        sources.refuse_large(len(data), sources.LARGEST)
    try:
        return data.decode("utf-8-sig", "replace" if errors == "replace" else "strict")
    except UnicodeDecodeError as error:
        raise Dropped("unreadable", f"not UTF-8 at byte {error.start}") from None


def clean(text: str, errors: str) -> str:
    """Return ``text`` without NUL characters, which mean that it is none: raise Dropped unless they are replaced."""
    if "\0" in text and errors != "replace":
        raise Dropped("unreadable", "NUL characters: not text")
    return text.replace("\0", " ")


def replaced(record: Record, table: object) -> int:
    """Return how many characters of an item's texts are U+FFFD or NUL; 0 unless such texts are to be kept."""
    if record.get("encoding_errors") != "replace":
        return 0
    texts = [record.get("text") or "", record.get("pair") or ""]
    if record["path"] is not None and hasattr(table, "tokens"):
        texts = [decoded_text(record["path"], "replace")]
    return sum(text.count("\ufffd") + text.count("\0") for text in texts)


def encode(texts: Sequence[str], vocabulary: Path) -> list[list[int]]:
    """Return the ids of the pieces of every text, by the tokenizer or else the sentencepiece model of a vocabulary."""
    if (vocabulary / tokenizer.FILE).exists():
        published = fresh(tokenizer.load, vocabulary / tokenizer.FILE)
        return [published.encode(text, add_special_tokens=False).ids for text in texts]
    return pieces(vocabulary).encode(list(texts), num_threads=1)  # the default is a thread for every core, each time


def pieces(vocabulary: Path) -> Any:
    """Return the sentencepiece model of a vocabulary folder."""
    return fresh(load_pieces, vocabulary / "pieces.model")


def fresh(load: Callable[[Path], T], path: Path) -> T:
    """Return what ``load`` makes of a file, kept until another file is asked for or this one changes."""
    path = path.resolve()
    return kept(load, path, path.stat().st_mtime_ns)


@lru_cache(maxsize=1)
def kept(load: Callable[[Path], Any], path: Path, modified: int) -> Any:
    """Return what ``load`` makes of a file; ``modified`` tells it from one that was there before."""
    return load(path)


def load_pieces(path: Path) -> Any:
    """Return the sentencepiece model in a file."""
    from sentencepiece import SentencePieceProcessor

    return SentencePieceProcessor(model_file=str(path))


def encode_document(text: str, vocabulary: Path) -> np.ndarray:
    """Return the ids [tokens] of a document's paragraphs, each closed by the end symbol."""
    ids = array("q")
    for part in closed(paragraphs(text, vocabulary), vocabulary):
        ids.fromlist(part)
    return np.array(ids, np.int64)


def paragraphs(text: str, vocabulary: Path) -> list[str]:
    """Return what stands between empty lines, to be read with one space for every run of white space.

    Sentencepiece reads it so by itself, but for some marks that it leaves out; a long paragraph has to be cut before.
    """
    for mark in LEFT_OUT:
        text = text.replace(mark, " ")
    parts = [part for part in re.split(r"\n\s*\n", text) if part and not part.isspace()]
    if max(map(len, parts), default=0) > STRETCH or (vocabulary / tokenizer.FILE).exists():
        return [re.sub(r"\s+", " ", part.strip()) for part in parts]
    return parts


def closed(parts: Sequence[str], vocabulary: Path) -> Iterator[list[int]]:
    """Yield the ids of paragraphs, each closed by the end symbol; where one is long, a stretch at a time."""
    if max(map(len, parts), default=0) <= STRETCH:
        for ids in encode(parts, vocabulary):
            ids.append(END)
            yield ids
        return
    for paragraph in parts:
        yield from (encode([part], vocabulary)[0] for part in stretches(paragraph, STRETCH))
        yield [END]


def stretches(paragraph: str, longest: int) -> Iterator[str]:
    """Yield a paragraph in parts of at most ``longest`` characters, cut at a space where there is one."""
    start = 0
    while start < len(paragraph):
        end = start + longest
        space = paragraph.rfind(" ", start, end) if end < len(paragraph) else -1
        end = space if space > start else end
        yield paragraph[start:end]
        start = end


def encode_sentence(text: str | None, tokens: int, vocabulary: Path) -> np.ndarray:
    """Return the ids [tokens] of one sentence, cut so that it fits a row, closed by the end symbol."""
    return encode_sentences([text or ""], tokens, vocabulary)


def encode_sentences(texts: Sequence[str], tokens: int, vocabulary: Path) -> np.ndarray:
    """Return the ids [tokens] of one sentence or two: ``A </s>``, ``A </s> </s> B </s>`` (reference 6.4).

    They are cut so that with the begin symbol they fit a row of ``tokens``, the longest side first.
    """
    sides = encode(texts, vocabulary)
    if not any(sides):
        raise Dropped("empty", "no words")
    sides = shortened(sides, max(0, tokens - 2 * len(sides)))
    joined = [token for side in sides for token in (END, *side, END)][1:]
    return np.array(joined, dtype=np.int64)


def shortened(sides: Sequence[list[int]], room: int) -> list[list[int]]:
    """Return one or two sequences cut to ``room`` ids in all: the longer one first, both when each has its half."""
    if len(sides) == 1:
        return [sides[0][:room]]
    first, second = sides
    kept = min(len(second), max(room // 2, room - len(first)))
    return [first[: room - kept], second[:kept]]
