"""Rows of tables as a person sees and hears them: clips, spectrograms, thumbnails and words, inside the page.

Pages open from disk without a network, so media are ``data:`` addresses: the same bytes every time, and small.
"""

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stages.report.tables import values_of

MOST_SECONDS = 8.0  # of a clip; at 16 kHz about 200 kB
MOST_BYTES = 1_500_000  # of clips in a page
MOST_PIXELS = 96  # along a side of a thumbnail
MOST_CHARACTERS = 300
WINDOW, HOP = 0.025, 0.010  # seconds
RANGE = 70.0  # decibels below the loudest that a spectrogram shows
SHADES = 24


@dataclass(frozen=True)
class Shown:
    """One row: what it is called, its words, its label, and the addresses of its media; empty where it has none."""

    id: str
    text: str
    label: str
    about: str
    audio: str = ""
    spectrogram: str = ""
    image: str = ""
    large: bool = False  # more pixels than are shown, which must not look like squares


class Room:
    """How many bytes of clips still go into a page."""

    def __init__(self, left: int = MOST_BYTES) -> None:
        self.left = left

    def take(self, address: str) -> str:
        """Return ``address`` if it still fits, else nothing."""
        if len(address) > self.left:
            return ""
        self.left -= len(address)
        return address


def show(
    row: Mapping, settings: Mapping, vocabulary: Path, classes: list[str], room: Room, wide: bool = False
) -> Shown:
    """Return a row of a table whose block of params.yaml is ``settings``; ``wide`` adds the spectrogram of audio."""
    text, label, (name, values) = row.get("text") or "", label_of(row, classes), values_of(row) or ("", [])
    if "sample_rate" in settings:
        samples, rate = np.array(values, np.int16), settings["sample_rate"]
        drawn = spectrogram(samples, rate) if wide else ""
        return Shown(row["id"], text, label, f"{len(samples) / rate:.2f} s", room.take(clip(samples, rate)), drawn)
    if "size" in settings:
        pixels = image(np.array(values, np.uint8), settings.get("channels", 3))
        about, large = f"{len(pixels)} × {len(pixels)} pixels", len(pixels) > MOST_PIXELS // 2
        return Shown(row["id"], text, label, about, image=picture(smaller(pixels)), large=large)
    if "tokens" in settings:
        text = text or words(values, vocabulary)
        return Shown(row["id"], shortened(text), label, f"{len(values)} tokens")
    return Shown(row["id"], shortened(text), label, f"{len(values):,} {name}{spread(values)}")


def label_of(row: Mapping, classes: list[str]) -> str:
    """Return the names of a row's labels, or its number; nothing for one without."""
    found = row.get("labels") or [label for label in [row.get("label")] if label is not None]
    if not found and row.get("score") is not None:
        return f"{row['score']:g}"
    return "; ".join(classes[label] for label in found if 0 <= label < len(classes))


def spread(values: list) -> str:
    """Return the range of some values in words."""
    return f" from {min(values):g} to {max(values):g}" if values else ""


def shortened(text: str) -> str:
    """Return the beginning of a long text."""
    return text if len(text) <= MOST_CHARACTERS else text[:MOST_CHARACTERS].rsplit(" ", 1)[0] + " …"


def address(kind: str, content: bytes) -> str:
    """Return ``content`` as an address that holds it."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def clip(samples: np.ndarray, rate: int) -> str:
    """Return the first ``MOST_SECONDS`` of samples [N] int16 as FLAC."""
    import soundfile

    content = io.BytesIO()
    soundfile.write(content, samples[: int(MOST_SECONDS * rate)], rate, format="FLAC", subtype="PCM_16")
    return address("audio/flac", content.getvalue())


def spectrogram(samples: np.ndarray, rate: int) -> str:
    """Return the loudness of frequencies (0 at the bottom, half the rate at the top) over time as a picture."""
    samples = samples[: int(MOST_SECONDS * rate)] / np.float64(32768)
    size, hop = round(WINDOW * rate), max(1, round(HOP * rate))
    samples = np.pad(samples, (0, max(0, size - len(samples))))
    frames = np.lib.stride_tricks.sliding_window_view(samples, size)[::hop] * np.hanning(size)
    power = 10 * np.log10(np.abs(np.fft.rfft(frames)).T[::-1] ** 2 + 1e-10)
    shade = np.clip((power - power.max()) / RANGE + 1, 0, 1)
    return picture(255 - (np.round(shade * (SHADES - 1)) * (255 / (SHADES - 1))).astype(np.uint8))


def image(values: np.ndarray, channels: int) -> np.ndarray:
    """Return a flat square image [channels × N × N] uint8 as [N, N] or [N, N, 3]."""
    side = round((len(values) / channels) ** 0.5)
    pixels = values.reshape(channels, side, side).transpose(1, 2, 0)
    return pixels[..., 0] if channels == 1 else pixels[..., :3]


def smaller(pixels: np.ndarray) -> np.ndarray:
    """Return pixels [N, N, …] uint8 with at most ``MOST_PIXELS`` on a side: the means of blocks."""
    block = -(-len(pixels) // MOST_PIXELS)
    count = len(pixels) // block
    parts = pixels[: count * block, : count * block].reshape(count, block, count, block, *pixels.shape[2:])
    return np.round(parts.mean(axis=(1, 3))).astype(np.uint8)


def picture(pixels: np.ndarray) -> str:
    """Return pixels [H, W] or [H, W, 3] uint8 as PNG."""
    from matplotlib.image import imsave

    content = io.BytesIO()
    unsigned: dict[str, Any] = {"Software": None}
    imsave(content, pixels, format="png", cmap="gray", vmin=0, vmax=255, metadata=unsigned)
    return address("image/png", content.getvalue())


def words(tokens: list[int], vocabulary: Path) -> str:
    """Return the words of a row of tokens, whose first one is the begin symbol; nothing without its vocabulary."""
    from stages import readers, tokenizer

    if (vocabulary / tokenizer.FILE).exists():
        return readers.fresh(tokenizer.load, vocabulary / tokenizer.FILE).decode(tokens, skip_special_tokens=True)
    if not (vocabulary / "pieces.model").exists():
        return ""
    return readers.pieces(vocabulary).decode([int(token) for token in tokens[1:]])
