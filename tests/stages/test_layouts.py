"""Corpora as people have them: every layout is read, splits are named or held out, and nothing is torn apart."""

from collections import Counter
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from d2v_core.config import build
from d2v_core.errors import UserError
from stages.layouts import COLUMNS, CorpusConfig, assign_splits, manifest

pytestmark = pytest.mark.usefixtures("home")


def corpus(layout: str, **changes: object) -> CorpusConfig:
    values = {"raw": "corpus", "layout": layout, "holdout": {"valid": 0.0, "test": 0.0}, "rows_per_shard": 4}
    return build(CorpusConfig, values | {"max_dropped": 0.1} | changes, "corpus")


def items(layout: str, seed: int = 0, **changes: object) -> dict[str, dict]:
    return {row["id"]: row for row in manifest(corpus(layout, **changes), seed).to_dicts()}


def splits(layout: str, **changes: object) -> dict[str, str]:
    return {name: row["split"] for name, row in items(layout, **changes).items()}


def write(*paths: str, text: str = "", raw: str = "corpus") -> None:
    for path in paths:
        file = Path(raw) / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")


def test_librispeech_names_splits_by_the_beginning_of_a_folder_and_finds_transcripts():
    write("train-clean-100/1/2/1-2-0000.flac", "train-clean-100/1/2/1-2-0001.WAV", "dev-other/3/4/3-4-0000.ogg")
    write("test/5/6/5-6-0000.mp3", "train-clean-100/1/2/notes.txt")
    write("train-clean-100/1/2/1-2.trans.txt", text="1-2-0000 TWO  WORDS\n1-2-0001\n\n")
    write("dev-other/3/4/3-4.trans.txt", text="3-4-0000 CAFÉ\n")
    found = items("librispeech")
    assert {name: row["split"] for name, row in found.items()} == {
        "1-2-0000": "train",
        "1-2-0001": "train",
        "3-4-0000": "valid",
        "5-6-0000": "test",
    }
    assert {name: row["text"] for name, row in found.items()} == {
        "1-2-0000": "TWO  WORDS",
        "1-2-0001": None,
        "3-4-0000": "CAFÉ",
        "5-6-0000": None,
    }
    assert found["3-4-0000"]["path"] == "corpus/dev-other/3/4/3-4-0000.ogg"


def test_librispeech_lets_splits_tsv_decide():
    write("train-clean-5/1/2/1-2-0000.flac", "train-clean-5/1/2/1-2-0001.flac", "train-clean-5/3/4/3-4-0000.flac")
    write("splits.tsv", text="utt_id\tsplit\tspeaker\n1-2-0000\tdev\t1\n3-4-0000\ttest\t3\n")
    assert splits("librispeech") == {"1-2-0000": "valid", "1-2-0001": "train", "3-4-0000": "test"}


def test_librispeech_refuses_a_splits_tsv_without_its_columns():
    write("1/2/1-2-0000.flac")
    write("splits.tsv", text="name\tpart\n1-2-0000\ttest\n")
    with pytest.raises(UserError, match=r"corpus/splits\.tsv has no columns 'utt_id' and 'split'"):
        items("librispeech")


def test_imagefolder_takes_the_class_as_label_with_and_without_splits():
    write("train/cat/1.png", "train/cat/more/2.JPG", "val/dog/1.jpeg", "test/cat/1.webp", "train/cat/readme.md")
    found = items("imagefolder")
    assert {name: (row["split"], row["label"]) for name, row in found.items()} == {
        "train/cat/1": ("train", "cat"),
        "train/cat/more/2": ("train", "cat"),
        "val/dog/1": ("valid", "dog"),
        "test/cat/1": ("test", "cat"),
    }
    assert {row["label"] for row in items("imagefolder", raw="corpus/train").values()} == {"cat"}


def test_images_outside_a_class_have_no_label():
    write("1.png", "train/2.png")
    assert {name: row["label"] for name, row in items("imagefolder").items()} == {"1": None, "train/2": None}


def test_text_and_arrays_take_files_by_suffix():
    write("train/a.txt", "train/b/c.txt", "test/d.txt", "train/up/x.npy")
    found = items("text")
    assert {name: row["split"] for name, row in found.items()} == {
        "train/a": "train",
        "train/b/c": "train",
        "test/d": "test",
    }
    assert {row["label"] for row in found.values()} == {None}
    assert items("arrays") == {
        "train/up/x": {
            "id": "train/up/x",
            "path": "corpus/train/up/x.npy",
            "split": "train",
            "label": "up",
            "text": None,
            "pair": None,
            "score": None,
            "encoding_errors": "drop",
        }
    }


def test_hidden_files_and_folders_are_left_out():
    write("train/a.txt", "train/._a.txt", ".trash/b.txt", "train/.checkpoints/c.txt")
    assert list(items("text")) == ["train/a"]


def test_tsv_reads_tables_named_as_splits_and_quotes_mean_nothing():
    write("train.tsv", text='sentence\tlabel\n"no, he said\t0\nyes"\t1\n')
    write("dev.tsv", text="label\tsentence\tmore\n1\tfine\tx\n")
    found = items("tsv")
    assert {name: (row["split"], row["label"], row["text"]) for name, row in found.items()} == {
        "train-0000000": ("train", "0", '"no, he said'),
        "train-0000001": ("train", "1", 'yes"'),
        "dev-0000000": ("valid", "1", "fine"),
    }
    assert found["dev-0000000"]["path"] is None


def test_csv_obeys_quotes_and_columns_can_have_other_names():
    write("train.csv", text='\ufefftext,category\n"one, ""two""\nthree",a\nfour,b\n')
    found = items("tsv", sentence="text", category="category")
    assert [(row["label"], row["text"]) for row in found.values()] == [("a", 'one, "two"\nthree'), ("b", "four")]


def test_tsv_refuses_a_split_without_the_columns_and_passes_over_other_tables():
    write("train.tsv", text="sentence\tlabel\nhello\t0\n")
    write("test.tsv", text="index\tsentence\n0\thello\n")
    with pytest.raises(UserError, match=r"test\.tsv has no columns 'sentence' and 'label'"):
        items("tsv")
    assert splits("tsv", parts={"train": "train", "dev": "test"}) == {"train-0000000": "train"}


def test_a_short_row_has_no_label():
    write("train.tsv", text="sentence\tlabel\nhello\n")
    assert items("tsv")["train-0000000"]["label"] is None


@pytest.mark.parametrize("content", [b"sentence,label\ncaf\xe9,1\n", b'sentence,label\n"' + b"x " * 70000])
def test_a_table_that_cannot_be_read_is_named(content):
    write("train.csv")
    Path("corpus/train.csv").write_bytes(content)
    with pytest.raises(UserError, match=r"corpus/train\.csv is not"):
        items("tsv")


def test_a_transcript_that_is_not_utf_8_is_named():
    write("train/1/2/1-2-0000.flac", "train/1/2/1-2.trans.txt")
    Path("corpus/train/1/2/1-2.trans.txt").write_bytes(b"1-2-0000 CAF\xc9\n")
    with pytest.raises(UserError, match=r"1-2\.trans\.txt is not UTF-8"):
        items("librispeech")


def test_parts_say_which_of_the_corpus_is_which_split_and_leave_out_the_rest():
    for name in ("learn", "check", "extra"):
        write(f"{name}.tsv", text="sentence\tlabel\nhello\t0\n")
    assert splits("tsv", parts={"learn": "train", "check": "test"}) == {
        "learn-0000000": "train",
        "check-0000000": "test",
    }


def test_parts_must_map_to_splits():
    with pytest.raises(UserError, match="parts must map to train, valid, test, not to 'dev'"):
        corpus("text", parts={"dev": "dev"})


def test_without_parts_every_folder_is_a_class():
    write("train/a/1.png", "test/b/1.png")
    assert {row["label"] for row in items("imagefolder", parts={}).values()} == {"train", "test"}


def test_a_missing_an_empty_and_a_foreign_folder_are_told_apart():
    with pytest.raises(UserError, match="corpus is not a folder; put the corpus there or change `raw`"):
        items("text")
    Path("corpus").mkdir()
    with pytest.raises(UserError, match="corpus holds nothing in the 'text' layout"):
        items("text")
    write("train/cat/1.png")
    with pytest.raises(UserError, match="corpus holds nothing in the 'arrays' layout"):
        items("arrays")


def test_nothing_to_train_on_is_an_error():
    write("test/a.txt", "dev/b.txt")
    with pytest.raises(UserError, match="corpus has nothing in its 'train' split"):
        items("text")


def test_only_splits_that_the_corpus_does_not_name_are_held_out():
    write(*[f"train/{number}.txt" for number in range(40)], "test/a.txt")
    counts = Counter(splits("text", holdout={"valid": 0.25, "test": 0.25}).values())
    assert counts == {"train": 30, "valid": 10, "test": 1}
    assert Counter(splits("text").values()) == {"train": 40, "test": 1}


def records(groups: list[int], part: str | None = None) -> pl.DataFrame:
    rows = [{"id": str(number), "part": part, "group": str(group)} for number, group in enumerate(groups)]
    return pl.DataFrame(rows, schema=COLUMNS)


GROUPS = st.lists(st.integers(0, 30), min_size=1, max_size=80)
SHARES = st.sampled_from([0.0, 0.1, 0.3, 0.45])


@given(groups=GROUPS, valid=SHARES, test=SHARES, seed=st.integers(0, 5), order=st.randoms(use_true_random=False))
def test_holdout_keeps_groups_whole_in_about_the_share_asked_for_in_any_order(groups, valid, test, seed, order):
    config = corpus("librispeech", holdout={"valid": valid, "test": test})
    frame = records(groups)
    found = assign_splits(frame, config, seed)
    assert found.height == len(groups)
    of_group = dict(zip(found["group"], found["split"], strict=True))
    assert all(of_group[group] == split for group, split in zip(found["group"], found["split"], strict=True))
    sizes, count = Counter(of_group.values()), len(of_group)
    assert sizes["test"] == (min(count, max(1, round(test * count))) if test else 0)
    assert sizes["valid"] == (min(count - sizes["test"], max(1, round(valid * count))) if valid else 0)
    shuffled = order.sample(range(len(groups)), len(groups))
    again = assign_splits(frame[shuffled], config, seed)
    assert dict(zip(again["id"], again["split"], strict=True)) == dict(zip(found["id"], found["split"], strict=True))


def test_the_seed_decides_who_is_held_out_and_a_new_group_moves_few():
    config = corpus("librispeech", holdout={"valid": 0.0, "test": 0.2})

    def held_out(groups: int, seed: int) -> set[str]:
        found = assign_splits(records(list(range(groups))), config, seed)
        return set(found.filter(pl.col("split") == "test")["group"])

    assert held_out(50, seed=0) == held_out(50, seed=0) != held_out(50, seed=1)
    assert len(held_out(51, seed=0) - held_out(50, seed=0)) <= 1


@pytest.mark.parametrize("holdout", [{"valid": -0.1, "test": 0.2}, {"valid": 0.5, "test": 0.5}])
def test_shares_must_leave_something(holdout):
    with pytest.raises(UserError, match=r"corpus\.holdout\.valid \+ test must be in \[0, 1\)"):
        corpus("text", holdout=holdout)
