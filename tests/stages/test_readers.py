"""Every kind of file that people have: read as what it is, or dropped for a reason, in bounded memory."""

import gzip
import io
import math
import os
import resource
import struct
import time
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import PIL.Image
import polars as pl
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st

from d2v_core.errors import Dropped
from d2v_core.modalities import speech, text, vision
from stages import pictures, readers, vocabulary
from stages.layouts import COLUMNS
from tests.stages.test_sources import zstandard
from tests.tiny import SENTENCE, words, write_audio

SPEECH = speech.TableConfig(sample_rate=16000, min_seconds=0.1, max_seconds=30.0)
VISION = vision.TableConfig(size=16, channels=3)
TEXT = text.TableConfig(vocabulary=40, tokens=16)
FOLDER = Path("vocabulary")


@pytest.fixture(scope="module")
def pieces(tmp_path_factory) -> bytes:
    """A sentencepiece model of a few words."""
    path = tmp_path_factory.mktemp("pieces") / "pieces.model"
    items = pl.DataFrame([{"text": words(number)} for number in range(50)], schema=COLUMNS)
    vocabulary.train_pieces(path, items, 39, vocabulary.VocabularyConfig("pieces"))
    return path.read_bytes()


@pytest.fixture(autouse=True)
def _vocabulary(home, pieces):
    FOLDER.mkdir()
    (FOLDER / "pieces.model").write_bytes(pieces)


def read(path: object, table: object = SPEECH, **record: str) -> object:
    return readers.read({"path": None if path is None else str(path), **record}, table, FOLDER)


def reason(path: object, table: object = SPEECH, **record: str) -> str:
    """Return why an item is dropped, by its reader or by its modality."""
    module = {SPEECH: speech, VISION: vision, TEXT: text}[table]
    with pytest.raises(Dropped) as caught:
        module.rows(read(path, table, **record), table)
    return caught.value.reason


def tone(seconds: float, rate: int, channels: int = 1) -> np.ndarray:
    wave = 0.5 * np.sin(2 * np.pi * 440 * np.arange(int(seconds * rate)) / rate)
    return np.repeat(wave[:, None], channels, axis=1).astype(np.float32)


FORMATS = [
    (".wav", "PCM_U8"),
    (".wav", "PCM_16"),
    (".wav", "PCM_24"),
    (".wav", "PCM_32"),
    (".wav", "FLOAT"),
    (".wav", "DOUBLE"),
    (".wav", "ULAW"),
    (".wav", "IMA_ADPCM"),
    (".flac", "PCM_S8"),
    (".flac", "PCM_16"),
    (".flac", "PCM_24"),
    (".aiff", "PCM_16"),
    (".ogg", "VORBIS"),
    (".opus", "OPUS"),
    (".mp3", "MPEG_LAYER_III"),
]


@pytest.mark.parametrize(("suffix", "subtype"), FORMATS)
def test_every_format_gives_the_same_sound(suffix, subtype):
    rate = 48000 if subtype == "OPUS" else 44100
    kind = {".mp3": "MP3", ".opus": "OGG"}.get(suffix)
    soundfile.write(f"a{suffix}", tone(1, rate), rate, subtype=subtype, format=kind)
    audio = read(f"a{suffix}")
    assert audio.dtype == np.float32
    assert len(audio) == pytest.approx(16000, abs=1200)
    assert np.abs(np.fft.rfft(audio[1000:9000])).argmax() == pytest.approx(220, abs=1)
    assert np.abs(audio[1000:-1000]).max() == pytest.approx(0.5, abs=0.06)


@pytest.mark.parametrize("rate", [4000, 8000, 11025, 22050, 96000, 192000])
@pytest.mark.parametrize("channels", [1, 2, 5, 8])
def test_every_rate_and_number_of_channels_becomes_mono_at_16000_hz(rate, channels):
    soundfile.write("a.wav", tone(0.5, rate, channels), rate, subtype="FLOAT")
    audio = read("a.wav")
    assert len(audio) == pytest.approx(8000, abs=2)
    assert np.abs(np.fft.rfft(audio[:8000])).argmax() == 220
    assert speech.rows(audio, SPEECH)[0]["audio"].dtype == np.int16


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".mp3"])
def test_blocks_change_nothing(suffix, monkeypatch):
    write_audio(Path(f"a{suffix}"), 3.0, 22050, 2)
    whole = read(f"a{suffix}")
    for size in (1000, 4097):
        monkeypatch.setattr(readers, "BLOCK", size)
        assert np.abs(read(f"a{suffix}") - whole).max() <= (1e-6 if suffix == ".mp3" else 0)


@pytest.mark.parametrize("rate", [16000, 22050, 44100])
def test_an_mp3_is_read_without_a_stop(rate):
    noise = 0.1 * np.random.default_rng(0).normal(size=20 * rate) + 0.5 * np.sin(np.arange(20 * rate) / 7)
    soundfile.write("a.mp3", noise, rate)
    whole, _ = soundfile.read("a.mp3", dtype="float32")
    found = readers.decode_audio("a.mp3", rate, 30.0)
    assert np.abs(found - whole).max() < 1e-6  # 0.4 where decoding stops and goes on: frames need those before them


def faulty_audio(kind: str) -> np.ndarray:
    wave = tone(0.5, 8000)
    return {
        "no samples": wave[:0],
        "NaN": np.full_like(wave, np.nan),
        "infinite": np.full_like(wave, np.inf),
        "silence": 0 * wave,
        "a constant": 0 * wave + 0.25,
        "short": wave[:400],
    }[kind]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("no samples", "empty"),
        ("NaN", "not finite"),
        ("infinite", "not finite"),
        ("silence", "silent"),
        ("a constant", "silent"),
        ("short", "duration"),
    ],
)
def test_sounds_without_content_are_dropped(kind, expected):
    with np.errstate(all="ignore"):
        soundfile.write("a.wav", faulty_audio(kind), 8000, subtype="FLOAT")
        assert reason("a.wav") == expected


def test_clipped_sound_is_read():
    soundfile.write("a.wav", 9 * tone(0.5, 16000), 16000, subtype="FLOAT")
    assert np.abs(speech.rows(read("a.wav"), SPEECH)[0]["audio"]).max() == 32767


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".mp3", ".aiff"])
def test_content_counts_and_not_the_suffix(suffix):
    write_audio(Path(f"a{suffix}"), 0.5)
    Path(f"a{suffix}").rename("b.opus")
    assert len(read("b.opus")) == pytest.approx(8000, abs=1200)


def test_ten_hours_are_refused_by_their_header():
    write_audio(Path("a.wav"), 0.5)
    header = bytearray(Path("a.wav").read_bytes()[:44])
    size = 10 * 3600 * 16000 * 2
    header[4:8], header[40:44] = struct.pack("<I", size + 36), struct.pack("<I", size)
    with open("long.wav", "wb") as file:
        file.write(header)
        file.truncate(44 + size)
    began = time.monotonic()
    assert reason("long.wav") == "duration"
    assert time.monotonic() - began < 1


def test_a_recording_that_hides_its_length_costs_no_more_than_the_longest_row():
    rng = np.random.default_rng(0)
    soundfile.write("a.flac", np.tile(rng.normal(0, 0.1, 1000), 8000), 8000)
    data = bytearray(Path("a.flac").read_bytes())
    data[21] &= 0xF0
    data[22:26] = bytes(4)
    Path("a.flac").write_bytes(data)
    tracemalloc.start()
    assert reason("a.flac") == "duration"
    assert tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.stop()


def test_audio_in_an_archive_is_the_audio_beside_it():
    import tarfile

    for name in ("a.flac", "a.wav", "a.mp3", "a.opus"):
        soundfile.write(name, tone(0.5, 48000), 48000, format="OGG" if name.endswith("opus") else None)
        with tarfile.open("all.tar", "w") as archive:
            archive.add(name)
        assert np.array_equal(read(f"all.tar!/{name}"), read(name))


def test_a_wav_with_a_header_that_does_not_know_its_length_is_read():
    header = bytearray(write_audio(Path("a.wav"), 0.5).read_bytes())
    for place in (header.index(b"RIFF"), header.index(b"data")):
        header[place + 4 : place + 8] = b"\xff" * 4
    Path("a.wav").write_bytes(header)
    assert len(read("a.wav")) == 8000


def test_what_is_no_file_is_dropped_at_once():
    os.mkfifo("pipe.wav")
    os.symlink("nowhere", "gone.wav")
    for name in ("pipe.wav", "gone.wav", "."):
        assert reason(name) == "unreadable"
    for table in (VISION, TEXT):
        assert reason("pipe.wav", table) == "unreadable"


def encoded(image: PIL.Image.Image, kind: str, **options: object) -> bytes:
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


PICTURE = PIL.Image.fromarray(np.random.default_rng(0).integers(0, 255, (21, 32, 3), dtype=np.uint8))
FRAMES = {"save_all": True, "append_images": [PICTURE.rotate(180), PICTURE.transpose(0)]}
IMAGES = {
    "JPEG": encoded(PICTURE, "JPEG", quality=95),
    "progressive JPEG": encoded(PICTURE, "JPEG", quality=95, progressive=True),
    "gray JPEG": encoded(PICTURE.convert("L"), "JPEG"),
    "CMYK JPEG": encoded(PICTURE.convert("CMYK"), "JPEG"),
    "PNG": encoded(PICTURE, "PNG"),
    "1-bit PNG": encoded(PICTURE.convert("1"), "PNG"),
    "2-bit PNG": encoded(PICTURE.quantize(4), "PNG", bits=2),
    "4-bit PNG": encoded(PICTURE.quantize(16), "PNG", bits=4),
    "16-bit PNG": encoded(PIL.Image.fromarray(np.arange(672, dtype=np.uint16).reshape(21, 32) * 97), "PNG"),
    "PNG with alpha": encoded(PICTURE.convert("RGBA"), "PNG"),
    "PNG with gray and alpha": encoded(PICTURE.convert("LA"), "PNG"),
    "PNG with a palette": encoded(PICTURE.convert("P"), "PNG"),
    "PNG with a transparent palette": encoded(PICTURE.convert("P"), "PNG", transparency=bytes(range(256))),
    "animated PNG": encoded(PICTURE, "PNG", **FRAMES),
    "GIF": encoded(PICTURE, "GIF"),
    "animated GIF": encoded(PICTURE, "GIF", **FRAMES),
    "WebP": encoded(PICTURE, "WEBP"),
    "lossless WebP": encoded(PICTURE, "WEBP", lossless=True),
    "WebP with alpha": encoded(PICTURE.convert("RGBA"), "WEBP"),
    "animated WebP": encoded(PICTURE, "WEBP", lossless=True, **FRAMES),
}


@pytest.mark.parametrize("kind", IMAGES)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_kind_of_image_is_read(kind, channels):
    Path("a.png").write_bytes(IMAGES[kind])
    assert pictures.dimensions(IMAGES[kind]) == (32, 21)
    image = readers.read_image("a.png", channels)
    assert (image.dtype, tuple(image.shape[1:])) == (torch.uint8, (21, 32))
    (row,) = vision.rows(image, vision.TableConfig(size=16, channels=channels))
    assert len(row["image"]) == 256 * channels


@pytest.mark.filterwarnings("ignore:Palette images with Transparency")
@pytest.mark.parametrize("kind", IMAGES)
def test_pixels_are_those_of_another_decoder_and_of_the_first_frame(kind):
    Path("a").write_bytes(IMAGES[kind])
    image = PIL.Image.open("a")
    expected = np.asarray(image) // 256 if kind == "16-bit PNG" else np.asarray(image.convert("RGB"))
    found = readers.read_image("a", 3).permute(1, 2, 0).numpy()
    difference = found - (expected[..., None] if expected.ndim == 2 else expected).astype(int)
    rounded = "JPEG" in kind or kind in ("WebP", "WebP with alpha", "16-bit PNG")
    assert np.abs(difference).max() <= (2 if rounded else 0)


def test_an_animation_is_cut_before_it_is_decoded():
    assert len(pictures.still(IMAGES["animated GIF"])) < len(IMAGES["animated GIF"]) / 2


def test_a_png_with_a_wrong_checksum_is_dropped_before_it_ends_the_process():
    data = bytearray(IMAGES["PNG"])
    data[len(data) // 2] ^= 255
    Path("a.png").write_bytes(data)
    assert reason("a.png", VISION) == "unreadable"


def png(width: int, height: int, rows: int = 0) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes((3 * width + 1) * rows), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def changed(kind: str, place: int, size: bytes) -> bytes:
    data = bytearray(IMAGES[kind])
    data[place : place + len(size)] = size
    return bytes(data)


BOMBS = {
    "PNG": png(30000, 30000),
    "PNG with pixels": png(20000, 20000, rows=1000),
    "JPEG": changed("JPEG", IMAGES["JPEG"].index(b"\xff\xc0") + 5, struct.pack(">HH", 60000, 60000)),
    "GIF": changed("GIF", 6, struct.pack("<HH", 60000, 60000)),
    "frame of a GIF": changed("GIF", IMAGES["GIF"].index(b"\x2c\0\0\0\0") + 5, struct.pack("<HH", 60000, 60000)),
    "WebP": changed("WebP", 26, struct.pack("<HH", 16383, 16383)),
    "lossless WebP": changed("lossless WebP", 21, struct.pack("<I", 2**28 - 1)),
    "WebP with alpha": changed("WebP with alpha", 24, b"\xff" * 6),
    "a strip": png(20000, 1, rows=1),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_images_that_are_too_large_are_refused_by_their_header(kind):
    Path("a.png").write_bytes(BOMBS[kind])
    began = time.monotonic()
    assert reason("a.png", VISION) == "too large"
    assert time.monotonic() - began < 0.5


def test_text_in_a_png_that_swells_is_not_unpacked():
    def swollen(kind: bytes, before: bytes) -> bytes:
        content = kind + before + zlib.compress(bytes(10**8), 9)
        return struct.pack(">I", len(content) - 4) + content + struct.pack(">I", zlib.crc32(content))

    data = png(1, 1, rows=1)
    chunks = swollen(b"zTXt", b"a\0\0") + swollen(b"iCCP", b"a\0\0") + swollen(b"iTXt", b"a\0\1\0\0\0")
    Path("a.png").write_bytes(data[:33] + chunks + data[33:])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert vision.rows(read("a.png", VISION), VISION)[0]["image"].tolist() == [0] * 768
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000


@pytest.mark.parametrize("turn", range(1, 9))
def test_a_picture_is_turned_upright_by_its_exif(turn):
    ramp = np.zeros((8, 16, 3), np.uint8)
    ramp[:4, :8] = 255  # a bright corner above on the left
    upright = PIL.Image.fromarray(ramp)
    turned = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # how PIL calls what undoes each of them
    image = upright.transpose(turned[turn]) if turn > 1 else upright
    exif = PIL.Image.Exif()
    exif[274] = turn
    Path("a.jpg").write_bytes(encoded(image, "JPEG", quality=95, exif=exif))
    found = readers.read_image("a.jpg", 1)[0]
    assert tuple(found.shape) == (8, 16)
    assert found[1, 1] > 200
    assert max(found[6, 14], found[6, 1], found[1, 14]) < 50


def test_one_pixel_is_an_image():
    Path("a.png").write_bytes(png(1, 1, rows=1))
    assert vision.rows(read("a.png", VISION), VISION)[0]["image"].tolist() == [0] * 768


@pytest.mark.parametrize("kind", IMAGES)
def test_a_third_of_an_image_is_none(kind):
    Path("a").write_bytes(IMAGES[kind][: len(IMAGES[kind]) // 3])
    with pytest.raises((Dropped, RuntimeError)):  # RuntimeError is the codec's; test_fuzz.py sees it become a reason
        readers.read_image("a", 3)


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xd8", b"GIF89a", b"RIFF1234WEBP", b"\x89PNG\r\n\x1a\n", b"not an image"]
)
def test_what_is_no_image_is_dropped(content):
    Path("a.jpg").write_bytes(content)
    assert reason("a.jpg", VISION) == "unreadable"


PACKED = {"a.txt": bytes, "a.txt.gz": gzip.compress, "a.txt.zst": zstandard}


@pytest.mark.parametrize("name", PACKED)
def test_text_is_read_packed_or_not_with_and_without_a_mark(name):
    for mark in (b"", b"\xef\xbb\xbf"):
        Path(name).write_bytes(PACKED[name](mark + SENTENCE.encode()))
        assert readers.read_text(name, "drop") == SENTENCE


@pytest.mark.parametrize("content", [b"caf\xe9", "hello".encode("utf-16-le"), "hello".encode("utf-16"), b"a\0b"])
def test_what_is_no_text_is_dropped_or_replaced(content):
    Path("a.txt").write_bytes(content)
    assert reason("a.txt", TEXT) == "unreadable"
    assert reason("a.txt", TEXT, encoding_errors="drop") == "unreadable"
    found = readers.read_text("a.txt", "replace")
    assert "\0" not in found
    assert set(content.decode("latin-1")) & set(found) - {"\0"}


def test_damaged_and_swollen_packed_text_is_dropped(monkeypatch):
    monkeypatch.setattr(readers.sources, "LARGEST", 10**6)
    for name, content in (("a.txt.gz", gzip.compress(b"x" * 1000)[:-9]), ("b.txt.gz", b"no"), ("c.txt.zst", b"no")):
        Path(name).write_bytes(content)
        assert reason(name, TEXT) == "unreadable"
    Path("d.txt.gz").write_bytes(gzip.compress(bytes(10**7)))
    assert reason("d.txt.gz", TEXT) == "too large"


def test_a_line_of_any_length_is_read_in_stretches(monkeypatch):
    short = " ".join(words(number) for number in range(40))
    whole = readers.encode_document(short, FOLDER)
    for size in (50, 64, 1000):
        monkeypatch.setattr(readers, "STRETCH", size)
        assert np.array_equal(readers.encode_document(short, FOLDER), whole)
        assert "".join(readers.stretches(short, size)) == short
    assert list(readers.stretches("x" * 2500, 1000)) == ["x" * 1000, "x" * 1000, "x" * 500]
    assert readers.encode_document("", FOLDER).tolist() == []


def sentences(first: str | None, second: str | None, tokens: int) -> list[int]:
    table = text.TableConfig(vocabulary=40, tokens=tokens)
    (row,) = text.rows(read(None, table, text=first, pair=second), table)
    return row["tokens"].tolist()


def test_pairs_are_joined_as_the_reference_joins_them():
    first, second = readers.encode(["the cat", "a mat"], FOLDER)
    assert sentences("the cat", "a mat", 512) == [0, *first, 2, 2, *second, 2]
    assert sentences("the cat", None, 512) == [0, *first, 2]
    assert sentences("the cat", "", 512) == [0, *first, 2, 2, 2]
    assert reason(None, TEXT, text=" ", pair="") == "empty"
    assert reason(None, TEXT, text=None, pair=None) == "empty"
    assert reason(None, TEXT, text="a\0b") == "unreadable"


SIDE = st.lists(st.integers(4, 9), max_size=40)


@given(first=SIDE, second=SIDE, room=st.integers(0, 60))
def test_the_longer_side_of_a_pair_is_cut_first(first, second, room):
    a, b = readers.shortened([first, second], room)
    assert (a, b) == (first[: len(a)], second[: len(b)])
    assert len(a) + len(b) == min(room, len(first) + len(second))
    if len(a) < len(first):
        assert len(a) >= len(b) - 1
    if len(b) < len(second):
        assert len(b) >= len(a) - 1
    assert readers.shortened([first], room) == [first[:room]]


def test_documents_of_a_vocabulary_leave_out_what_cannot_be_read():
    Path("a.txt").write_text("one")
    Path("b.txt").write_bytes(b"caf\xe9 two")
    rows = [{"path": "a.txt"}, {"path": "b.txt"}, {"path": "gone.txt"}, {"text": "three", "pair": "four"}, {}]
    found = list(vocabulary.documents(pl.DataFrame(rows, schema=COLUMNS)))
    assert found == ["one", "caf� two", "three\nfour", ""]


def test_the_longest_row_bounds_what_is_decoded():
    write_audio(Path("a.wav"), 2.0)
    assert len(readers.decode_audio("a.wav", 16000, 2.0)) == 32000
    assert len(readers.read_audio(Path("a.wav"), 16000)) == 32000
    assert len(readers.decode_audio("a.wav", 16000, math.inf)) == 32000


@pytest.mark.skipif(os.name != "posix", reason="permissions are those of POSIX")
def test_what_may_not_be_read_is_an_error_of_its_own():
    write_audio(Path("a.wav"), 0.5)
    Path("a.wav").chmod(0)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        for table in (SPEECH, VISION, TEXT):
            with pytest.raises((PermissionError, soundfile.LibsndfileError)):
                read("a.wav", table)
    finally:
        if user == 0:
            os.seteuid(0)
