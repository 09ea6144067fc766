"""Damaged files of every kind: each is read or dropped for a reason, quickly, and nothing else ever happens.

``D2V_NIGHTLY=1`` tries twenty times as many.
"""

import gzip
import io
import json
import lzma
import random
import tarfile
import time
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from d2v_core import modalities
from d2v_core.config import build
from d2v_core.errors import Dropped, UserError
from stages import vocabulary
from stages.layouts import COLUMNS, CorpusConfig, manifest
from stages.preparation.shards import Job, Task, make_rows
from tests.nightly import NIGHTLY
from tests.stages.test_readers import FORMATS, IMAGES, SPEECH, TEXT, VISION, tone
from tests.tiny import words

FILES = 5000 if NIGHTLY else 250
SLOWEST = 5.0  # seconds for one file, on a busy machine
NUMBERS = [bytes(4), b"\xff" * 4, b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\1", b"\1\0\0\0", b"\x80\0\0\0"]


def mutate(data: bytes, other: bytes, rng: random.Random) -> bytes:
    """Return ``data`` with one to three faults: bits, numbers, ends, gaps, repeats, parts of another file."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 3)):
        size = len(changed)
        header = rng.random() < 0.6  # most of what decides is at the beginning
        place = rng.randrange(max(1, min(size, 96) if header else size))
        kind = rng.randrange(7)
        if kind == 0 and size:
            changed[place] ^= 1 << rng.randrange(8)
        elif kind == 1:
            changed[place : place + 4] = rng.choice(NUMBERS)
        elif kind == 2:
            changed[place:] = b""
        elif kind == 3:
            del changed[place : place + rng.randrange(1, 64)]
        elif kind == 4:
            changed[place:place] = changed[place : place + 200] * rng.randrange(1, 4)
        elif kind == 5:
            changed[place : place + 100] = rng.randbytes(rng.randrange(1, 100))
        else:
            changed[place:] = other[rng.randrange(max(1, len(other))) :]
    return bytes(changed)


def speech_files() -> dict[str, bytes]:
    found = {}
    for suffix, subtype in FORMATS:
        rate = 48000 if subtype == "OPUS" else 16000
        kind = {".mp3": "MP3", ".opus": "OGG"}.get(suffix)
        name = f"{subtype}{suffix}"
        soundfile.write(name, tone(0.3, rate, 2), rate, subtype=subtype, format=kind)
        found[name] = Path(name).read_bytes()
    return found


def vision_files() -> dict[str, bytes]:
    return {f"{name}.png": data for name, data in IMAGES.items()}


def text_files() -> dict[str, bytes]:
    document = "\n\n".join(words(number) for number in range(9)).encode()
    return {"a.txt": document, "b.txt.gz": gzip.compress(document), "c.txt": "Ünïcode 日本語 🙂\n\n".encode() * 20}


@pytest.fixture
def pieces(home) -> Path:
    folder = home / "vocabulary"
    folder.mkdir()
    items = pl.DataFrame([{"text": words(number)} for number in range(50)], schema=COLUMNS)
    vocabulary.train_pieces(folder / "pieces.model", items, 39, vocabulary.VocabularyConfig("pieces"))
    return folder


CORPORA = {"speech": (SPEECH, speech_files), "vision": (VISION, vision_files), "text": (TEXT, text_files)}


@pytest.mark.parametrize("modality", CORPORA)
def test_a_damaged_file_gives_rows_or_a_reason(modality, pieces):
    table, make = CORPORA[modality]
    task = Task(Job(modality, table, pieces, "store", ".", ""), "train", (), {})
    files, columns = make(), modalities.get(modality).columns
    rng, reasons, slowest = random.Random(f"{modality}{FILES}"), [], 0.0
    for number in range(FILES):
        name = rng.choice(sorted(files))
        data = mutate(files[name], files[rng.choice(sorted(files))], rng)
        Path(name).write_bytes(data)
        errors = rng.choice(["drop", "replace"])
        record = {"id": name, "path": name, "label": None, "text": None, "encoding_errors": errors}
        Path("latest").write_bytes(data)  # what to look at when a codec ends the process
        began = time.monotonic()
        try:
            rows = make_rows(record, task, modalities.get(modality))
        except Dropped as error:
            reasons.append((error.reason, error.detail))
            continue
        finally:
            slowest = max(slowest, time.monotonic() - began)
        assert all(set(row) <= set(columns.names) for row in rows)
        assert all(isinstance(value, np.ndarray) for row in rows for value in row.values())
    assert all(word and detail for word, detail in reasons)
    assert slowest < SLOWEST
    assert FILES / 10 < len(reasons) < FILES or modality == "text"


def tables() -> dict[str, tuple[str, dict[str, bytes]]]:
    """Return small corpora of every layout in which something else than the items can be damaged."""
    rows = [{"path": f"{n}.wav", "text": words(n), "label": f"{n % 2}", "split": "train"} for n in range(6)]
    lines = ["\t".join(rows[0]), *("\t".join(row.values()) for row in rows)]
    arrow, parquet, packed = io.BytesIO(), io.BytesIO(), io.BytesIO()
    table = pa.Table.from_pylist([{"audio": {"bytes": b"RIFF", "path": "a"}, "text": words(n)} for n in range(6)])
    pq.write_table(table, parquet)
    with pa.ipc.new_file(arrow, table.schema) as writer:
        writer.write_table(table)
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for row in rows:
            archive.addfile(tarfile.TarInfo(f"train/{row['path']}"))
    tsv, csv = ("\n".join(lines).replace("\t", mark).encode() for mark in ("\t", ","))
    voices = tsv.replace(b"text", b"sentence").replace(b"label", b"client_id")
    glue = b"index\tsentence1\tsentence2\tscore\n" + b"".join(b"%d\ta\tb\t%d\n" % (n, n % 6) for n in range(6))
    return {
        "manifest.csv": ("manifest", {"manifest.csv": csv}),
        "manifest.jsonl": ("manifest", {"manifest.jsonl": "\n".join(map(json.dumps, rows)).encode()}),
        "train.tsv": ("tsv", {"train.tsv": tsv.replace(b"text", b"sentence")}),
        "voices": ("common_voice", {"train.tsv": voices, "clips/0.wav": b""}),
        "glue": ("glue", {"train.tsv": glue}),
        "cola": ("glue", {"train.tsv": b"a\t1\t\tYes.\nb\t0\t*\tNo.\n"}),
        "parquet": ("parquet", {"train.parquet": parquet.getvalue()}),
        "arrow": ("parquet", {"train.arrow": arrow.getvalue()}),
        "documents": ("text", {"train.jsonl.gz": gzip.compress("\n".join(map(json.dumps, rows)).encode())}),
        "tar": ("labelfolders", {"all.tar": packed.getvalue()}),
        "tar.xz": ("labelfolders", {"all.tar.xz": lzma.compress(packed.getvalue())}),
        "transcripts": ("librispeech", {"1/2/1-2.trans.txt": b"1-2-0 HI\n", "1/2/1-2-0.wav": b""}),
    }


@pytest.mark.parametrize("layout", ["auto", "named"])
def test_a_damaged_table_or_archive_is_read_or_refused_in_one_sentence(layout, pieces):
    corpora, rng, sentences = tables(), random.Random(f"{layout}{FILES}"), []
    task = Task(Job("speech", SPEECH, pieces, "store", ".", ""), "train", (), {})
    for number in range(FILES):
        own, files = corpora[rng.choice(sorted(corpora))]
        root = Path(f"corpus-{number}")
        for name, data in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(mutate(data, data, rng))
        values = {"raw": str(root), "layout": own if layout == "named" else "auto", "rows_per_shard": 9}
        values |= {"holdout": {"valid": 0.0, "test": 0.0}, "max_dropped": 0.1}
        values["encoding_errors"] = rng.choice(["drop", "replace"])
        try:
            items = manifest(build(CorpusConfig, values, "corpus"), seed=0)
        except UserError as error:
            sentences.append((str(root), str(error)))
            continue
        for record in items.to_dicts():
            with pytest.raises(Dropped) as caught:  # none of the files holds a sound
                make_rows(record | {"label": None}, task, modalities.get("speech"))
            assert caught.value.reason
    assert FILES / 10 < len(sentences) < FILES
    assert all(root in sentence for root, sentence in sentences)
