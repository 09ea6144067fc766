"""Corpora as others publish them: Common Voice, Speech Commands, manifests, Hugging Face's hub, GLUE, archives."""

import gzip
import io
import json
import lzma
import tarfile
from pathlib import Path
from typing import get_args

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from d2v_core.errors import UserError
from stages import sources
from stages.layouts import LAYOUTS, manifest
from stages.layouts.config import Layout
from tests.stages.test_layouts import corpus, items, splits, write
from tests.tiny import ROOT

pytestmark = pytest.mark.usefixtures("home")


def pack(folder: str, target: str) -> None:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        archive.add(folder, arcname=folder.rpartition("/")[2])
    packer = {".gz": gzip.compress, ".xz": lzma.compress}.get(Path(target).suffix, bytes)
    Path(target).write_bytes(packer(content.getvalue()))


def shown(found: dict[str, dict], *columns: str) -> dict[str, tuple]:
    return {name: tuple(row[column] for column in columns) for name, row in found.items()}


def test_every_layout_is_documented_and_there():
    names = set(get_args(Layout))
    assert names == {*LAYOUTS, "auto"}
    text = (ROOT / "docs/corpora.md").read_text(encoding="utf-8")
    assert all(f"| `{name}` |" in text for name in names)


def test_common_voice_keeps_speakers_and_finds_clips():
    header = "client_id\tpath\tsentence\tup_votes\n"
    write("en/train.tsv", text=header + 'ann\tcv_1.mp3\t"Hello, he said\t2\nbob\tcv_2\tBye\t2\n')
    write("en/dev.tsv", text=header + "cid\tcv_3.mp3\tYes\t2\n")
    write("en/other.tsv", text=header + "dan\tcv_4.mp3\tNo\t2\n")
    write("en/clips/cv_1.mp3", "en/clips/cv_2.mp3", "en/clips/cv_4.mp3")
    assert shown(items("common_voice"), "split", "text", "path") == {
        "en/clips/cv_1": ("train", '"Hello, he said', "corpus/en/clips/cv_1.mp3"),
        "en/clips/cv_2": ("train", "Bye", "corpus/en/clips/cv_2.mp3"),
        "en/clips/cv_3": ("valid", "Yes", "corpus/en/clips/cv_3.mp3"),
    }


def test_common_voice_with_validated_clips_alone_holds_speakers_out():
    rows = "".join(f"{speaker}\t{speaker}{clip}.mp3\thi\n" for speaker in "abcdefghij" for clip in range(3))
    write("validated.tsv", text="client_id\tpath\tsentence\n" + rows)
    found = splits("common_voice", holdout={"valid": 0.2, "test": 0.2})
    assert sorted(found.values()) == ["test"] * 6 + ["train"] * 18 + ["valid"] * 6
    assert all(len({found[f"clips/{speaker}{clip}"] for clip in range(3)}) == 1 for speaker in "abcdefghij")


def test_speech_commands_lists_name_parts_and_noise_is_no_label():
    write("yes/aa_nohash_0.wav", "yes/aa_nohash_1.wav", "no/bb_nohash_0.wav", "no/cc_nohash_0.wav")
    write("_background_noise_/hum.wav", "_background_noise_/README.md")
    write("validation_list.txt", text="no/bb_nohash_0.wav\n")
    write("testing_list.txt", text="no/cc_nohash_0.wav\n")
    assert shown(items("labelfolders"), "split", "label") == {
        "no/bb_nohash_0": ("valid", "no"),
        "no/cc_nohash_0": ("test", "no"),
        "yes/aa_nohash_0": ("train", "yes"),
        "yes/aa_nohash_1": ("train", "yes"),
    }


def test_speakers_of_speech_commands_are_not_torn_apart():
    write(*[f"{word}/s{speaker}_nohash_{take}.wav" for word in ("a", "b") for speaker in range(10) for take in (0, 1)])
    found = splits("labelfolders", holdout={"valid": 0.2, "test": 0.2})
    for speaker in range(10):
        assert len({split for name, split in found.items() if f"/s{speaker}_" in name}) == 1
    assert sorted(found.values()).count("test") == 8


TABLE = [
    {"file": "audio/1.wav", "words": "one", "who": "ann", "split": "train", "label": "x"},
    {"file": "audio/2 b.wav", "words": "zwei, ä", "who": "bob", "split": "dev", "label": ""},
    {"file": "audio/gone.wav", "words": "", "who": "ann", "split": "extra", "label": "x"},
]
COLUMNS = {"path": "file", "sentence": "words", "speaker": "who"}


def delimited(mark: str) -> str:
    def cell(value: str) -> str:
        return f'"{value}"' if mark in value else value

    return "\n".join(mark.join(map(cell, row)) for row in [TABLE[0].keys(), *[row.values() for row in TABLE]])


@pytest.mark.parametrize("suffix", ["tsv", "csv", "jsonl"])
def test_a_manifest_names_files_and_all_that_is_known_of_them(suffix):
    text = "\n".join(map(json.dumps, TABLE)) if suffix == "jsonl" else delimited({"tsv": "\t", "csv": ","}[suffix])
    write(f"deep/manifest.{suffix}", text=text + "\n")
    write("deep/audio/1.wav", "deep/audio/2 b.wav", "deep/notes.csv")
    found = items("manifest", **COLUMNS)
    assert shown(found, "split", "label", "text", "path") == {
        "deep/audio/1": ("train", "x", "one", "corpus/deep/audio/1.wav"),
        "deep/audio/2 b": ("valid", None, "zwei, ä", "corpus/deep/audio/2 b.wav"),
    }


def test_a_manifest_of_missing_files_still_counts_them():
    write("manifest.csv", text="path\nthere.wav\ngone.wav\n../out.wav\n")
    write("there.wav")
    assert {row["path"] for row in items("manifest").values()} == {
        "corpus/there.wav",
        "corpus/gone.wav",
        "corpus/../out.wav",
    }


def test_a_manifest_can_be_texts_alone_or_one_table_a_part():
    write("train.csv", text="text,label,score\nhello,a,0.5\nbye,b,1\n")
    write("test-more.csv", text="text,label,score\nagain,a,2\n")
    write("about.csv", text="version\n1\n")
    assert shown(items("manifest"), "split", "label", "text", "path") == {
        "train-0000000": ("train", "a", "hello", None),
        "train-0000001": ("train", "b", "bye", None),
        "test-more-0000000": ("test", "a", "again", None),
    }
    assert shown(items("manifest", score="score"), "label", "score")["train-0000000"] == (None, "0.5")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"path": "nosuch"}, r"manifest\.csv has no column 'nosuch'; it has 'a', 'b'"),
        ({}, r"manifest\.csv names neither files nor texts; set `path` or `sentence`"),
    ],
)
def test_a_manifest_without_the_columns_is_refused(changes, sentence):
    write("manifest.csv", text="a,b\n1,2\n")
    with pytest.raises(UserError, match=sentence):
        items("manifest", **changes)


def test_a_manifest_with_a_broken_line_is_refused():
    write("manifest.jsonl", text='{"path": "a.wav"}\n{"path"\n')
    with pytest.raises(UserError, match=r"manifest\.jsonl has no JSON in line 2"):
        items("manifest")


def hub(path: str, table: pa.Table, names: list[str] | None = None) -> None:
    if names:
        features = {"label": {"names": names, "_type": "ClassLabel"}}
        metadata = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
        table = table.replace_schema_metadata(metadata)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    if path.endswith(".parquet"):
        pq.write_table(table, path, row_group_size=2)
    else:
        with pa.ipc.new_stream(path, table.schema) as writer:
            writer.write_table(table)


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
def test_the_hub_s_images_have_names_for_their_labels(suffix):
    images = [{"image": {"bytes": bytes([n]) * 4, "path": f"{n}.png"}, "label": n % 3 - 1} for n in range(5)]
    hub(f"corpus/data/train-00000-of-00002.{suffix}", pa.Table.from_pylist(images[:3]), ["cat", "dog"])
    hub(f"corpus/data/train-00001-of-00002.{suffix}", pa.Table.from_pylist(images[3:]), ["cat", "dog"])
    hub(f"corpus/data/validation-00000-of-00001.{suffix}", pa.Table.from_pylist(images[:2]))
    found = items("parquet")
    assert shown(found, "split", "label") == {
        "data/train-00000-of-00002-0000000": ("train", None),
        "data/train-00000-of-00002-0000001": ("train", "cat"),
        "data/train-00000-of-00002-0000002": ("train", "dog"),
        "data/train-00001-of-00002-0000000": ("train", None),
        "data/train-00001-of-00002-0000001": ("train", "cat"),
        "data/validation-00000-of-00001-0000000": ("valid", "-1"),
        "data/validation-00000-of-00001-0000001": ("valid", "0"),
    }
    assert sources.open_bytes(found["data/train-00001-of-00002-0000001"]["path"]) == bytes([4]) * 4


def test_the_hub_s_audio_has_transcripts_speakers_and_ids():
    rows = [
        {"id": f"{n}-1", "audio": {"bytes": b"RIFF", "path": None}, "text": f"word {n}", "speaker_id": n // 2}
        for n in range(20)
    ]
    hub("corpus/clean/train.100/0000.parquet", pa.Table.from_pylist(rows))
    found = items("parquet", holdout={"valid": 0.1, "test": 0.1})
    assert found["3-1"]["text"] == "word 3"
    assert all(found[f"{n}-1"]["split"] == found[f"{n + 1}-1"]["split"] for n in range(0, 20, 2))
    assert {row["split"] for row in found.values()} == {"train", "valid", "test"}


def test_the_hub_s_texts_are_sentences_or_documents():
    table = pa.Table.from_pylist([{"text": "hello", "label": 1}, {"text": "bye", "label": 0}])
    hub("corpus/train-00000-of-00001.parquet", table, ["no", "yes"])
    assert shown(items("parquet"), "text", "label", "path")["train-00000-of-00001-0000000"] == ("hello", "yes", None)
    (first, second) = items("text").values()
    assert (first["text"], first["label"]) == (None, None)
    assert sources.open_bytes(second["path"]) == b"bye"


@pytest.mark.parametrize("changes", [{"sentence": "nosuch"}, {"category": "nosuch"}])
def test_parquet_without_the_columns_is_refused(changes):
    hub("corpus/train.parquet", pa.Table.from_pylist([{"text": "hello"}]))
    with pytest.raises(UserError, match="has no column 'nosuch'; it has 'text'"):
        items("parquet", **changes)
    hub("corpus/train.parquet", pa.Table.from_pylist([{"number": 1}]))
    with pytest.raises(UserError, match="has neither bytes nor text"):
        items("parquet")


def test_a_parquet_file_that_is_none_is_named():
    write("train.parquet", text="no")
    with pytest.raises(UserError, match=r"corpus/train\.parquet cannot be read"):
        items("parquet")


def test_text_is_read_from_packed_files_and_json_lines():
    Path("corpus/train").mkdir(parents=True)
    Path("corpus/train/a.txt.gz").write_bytes(gzip.compress(b"packed"))
    write("train-0.jsonl", text='{"text": "one"}\n{"text": "two", "more": 1}\n')
    write("valid.jsonl", text='{"text": "three"}\n')
    found = items("text")
    assert shown(found, "split") == {
        "train/a": ("train",),
        "train-0-000000000000": ("train",),
        "train-0-000000000016": ("train",),
        "valid-000000000000": ("valid",),
    }
    assert sources.open_bytes(found["train-0-000000000016"]["path"]) == b"two"
    other = items("text", sentence="more")
    assert other["train-0-000000000016"]["path"].endswith("#16/more")


GLUE = {
    "CoLA": (None, "gj04\t1\t\tYes it is.", "gj04\t0\t*\tIs yes it.", ("Yes it is.", None, "1", None)),
    "SST-2": ("sentence\tlabel", "good \t1", "bad \t0", ("good ", None, "1", None)),
    "MRPC": ("Quality\t#1 ID\t#2 ID\t#1 String\t#2 String", "1\t2\t3\ta\tb", "0\t4\t5\tc\td", ("a", "b", "1", None)),
    "QQP": ("id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate", "0\t1\t2\ta\tb\t0", "3\t4\t5", ("a", "b", "0", None)),
    "STS-B": (
        "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore",
        "0\tg\tf\ty\t1\tn\tn\ta\tb\t5.000",
        "1\tg\tf\ty\t2\tn\tn\tc\td\t3.800",
        ("a", "b", None, "1.0"),
    ),
    "MNLI": (
        "index\tpromptID\tpairID\tgenre\tsentence1_binary_parse\tsentence2_binary_parse\tsentence1_parse"
        "\tsentence2_parse\tsentence1\tsentence2\tlabel1\tgold_label",
        "0\t1\t1n\tg\t(a)\t(b)\t(a)\t(b)\ta\tb\tneutral\tentailment",
        "0\t1\t1n\tg\t(a)\t(b)\t(a)\t(b)\tc\td\tneutral\t-",
        ("a", "b", "entailment", None),
    ),
    "QNLI": ("index\tquestion\tsentence\tlabel", "0\ta\tb\tentailment", "1\tc\td\tnot_entailment", None),
    "RTE": ("index\tsentence1\tsentence2\tlabel", "0\ta\tb\tentailment", "1\tc\td\tnot_entailment", None),
    "WNLI": ("index\tsentence1\tsentence2\tlabel", "0\ta\tb\t1", "1\tc\td\t0", ("a", "b", "1", None)),
}


@pytest.mark.parametrize("task", GLUE)
def test_every_task_of_glue_is_read_as_it_is_downloaded(task):
    header, first, second, expected = GLUE[task]
    lines = "".join(f"{line}\n" for line in (header, first, second) if line)
    write("train.tsv", text=lines)
    for name in ("dev_matched", "dev_mismatched") if task == "MNLI" else ("dev",):
        write(f"{name}.tsv", text=lines)
    write("test.tsv", text="index\tsentence\n0\tno answer\n")
    write("original/readme.tsv", text="nothing\n")
    found = items("glue")
    expected = expected or ("a", "b", "entailment", None)
    assert shown(found, "text", "pair", "label", "score")["train-0000000"] == expected
    counts = {"train": 2, "valid": 2} | ({"test": 2} if task == "MNLI" else {})
    assert {split: [row["split"] for row in found.values()].count(split) for split in counts} == counts
    assert len(found) == sum(counts.values())
    unlabelled = {"QQP": (None, None), "MNLI": ("c", "d")}
    if task in unlabelled:
        row = found["train-0000001"]
        assert (row["text"], row["pair"]) == unlabelled[task]
        assert row["label"] is None
    assert items("auto") == found


def test_a_file_of_no_glue_task_is_refused():
    write("train.tsv", text="a\tb\n1\t2\n")
    with pytest.raises(UserError, match=r"train\.tsv has the header of no GLUE task"):
        items("glue")


def test_pairs_and_scores_of_any_table():
    write("train.csv", text="premise,claim,grade\na,b,0.5\nc,,\n")
    found = items("tsv", sentence="premise", pair="claim", score="grade")
    assert shown(found, "text", "pair", "label", "score") == {
        "train-0000000": ("a", "b", None, "0.5"),
        "train-0000001": ("c", "", None, None),
    }


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".tar.xz"])
def test_a_packed_corpus_is_the_corpus_without_its_outermost_folder(suffix):
    write("train/cat/1.png", "train/dog/2.png", "test/cat/3.png", "readme.md")
    plain = items("imagefolder")
    pack("corpus", f"corpus{suffix}")
    packed = items("imagefolder", raw=f"corpus{suffix}")
    assert shown(packed, "split", "label") == shown(plain, "split", "label")
    assert packed["train/cat/1"]["path"] == f"corpus{suffix}!/corpus/train/cat/1.png"


def test_archives_beside_each_other_are_one_corpus():
    write("train-clean/1/2/1-2-0.flac", "dev-clean/3/4/3-4-0.flac")
    write("train-clean/1/2/1-2.trans.txt", text="1-2-0 HELLO\n")
    Path("packed").mkdir()
    pack("corpus/train-clean", "packed/train-clean.tar.gz")
    pack("corpus/dev-clean", "packed/dev-clean.tar")
    assert shown(items("librispeech", raw="packed"), "split", "text") == {
        "1-2-0": ("train", "HELLO"),
        "3-4-0": ("valid", None),
    }


def test_a_corpus_can_lie_at_a_url():
    for name in ("train/a.txt", "test/b.txt"):
        with fsspec.open(f"memory://layouts/corpus/{name}", "wb") as file:
            file.write(b"hello")
    found = manifest(corpus("text", raw="memory://layouts/corpus"), seed=0)
    assert found["id"].to_list() == ["test/b", "train/a"]
    assert [sources.open_bytes(path) for path in found["path"]] == [b"hello"] * 2


CORPORA = {
    "librispeech": {"train/1/2/1-2-0.flac": "", "train/1/2/1-2.trans.txt": "1-2-0 HI\n"},
    "common_voice": {"train.tsv": "client_id\tpath\tsentence\na\tb.mp3\thi\n", "clips/b.mp3": ""},
    "labelfolders": {"yes/a.wav": "", "no/b.wav": ""},
    "imagefolder": {"train/cat/1.JPEG": "", "val/cat/2.JPEG": "", "readme.txt": "hello"},
    "text": {"train/a.txt": "hello"},
    "tsv": {"train.csv": "text,category\nhello,a\n"},
    "glue": {"train.tsv": "index\tsentence1\tsentence2\tlabel\n0\ta\tb\t1\n"},
    "manifest": {"manifest.csv": "path,text\n1.wav,hello\n", "1.wav": ""},
    "arrays": {"train/up/x.npy": ""},
}


@pytest.mark.parametrize("layout", CORPORA)
def test_auto_finds_the_one_layout_that_fits_and_says_so(layout, capsys):
    for name, text in CORPORA[layout].items():
        write(name, text=text)
    names = {"sentence": "text", "category": "category"} if layout == "tsv" else {}
    found = items("auto", **names)
    assert found == items(layout, **names)
    assert f"corpus: layout {layout!r}\n" in capsys.readouterr().out


def test_auto_finds_parquet(capsys):
    hub("corpus/train.parquet", pa.Table.from_pylist([{"text": "hello"}]))
    assert len(items("auto")) == 1
    assert "layout 'parquet'" in capsys.readouterr().out


def test_auto_refuses_what_fits_twice_or_not_at_all():
    write("train/cat/1.png", "train/up/x.npy")
    with pytest.raises(UserError, match="corpus fits 'imagefolder' and 'arrays'; set `layout`"):
        items("auto")
    write("recordings/one.wav", "recordings/two.wav", raw="flat")
    with pytest.raises(UserError, match="flat fits no layout"):
        items("auto", raw="flat")
    write("train/notes.md", raw="other")
    with pytest.raises(UserError, match="other fits no layout; set `layout`"):
        items("auto", raw="other")


def test_text_that_is_not_unicode_in_json_is_replaced():
    write("manifest.jsonl", text='{"text": "\\ud800 hello", "label": "a"}\n')
    assert items("manifest")["manifest-0000000"]["text"] == "? hello"


def test_arrays_of_numpy_are_found_in_archives():
    write("train/up/x.npy")
    np.save("corpus/train/up/x.npy", np.zeros(3))
    pack("corpus", "corpus.tar")
    (row,) = items("arrays", raw="corpus.tar").values()
    assert np.load(io.BytesIO(sources.open_bytes(row["path"]))).tolist() == [0, 0, 0]
