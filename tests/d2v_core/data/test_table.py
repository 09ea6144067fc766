"""What is written is what is read; what is damaged is refused."""

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from d2v_core.data.table import LABELS, Rows, Table, digest, schema, write_index, write_shard
from d2v_core.errors import UserError

COLUMNS = schema(audio=pa.int16())
ROWS = [{"id": f"row{n}", "label": n % 2, "text": None, "audio": np.arange(n, dtype=np.int16)} for n in range(7)]


def write(folder, rows=ROWS, split="train", per_shard=3):
    entries = {}
    for number, start in enumerate(range(0, len(rows), per_shard)):
        name = f"{split}-{number:05d}.arrow"
        entries[name] = write_shard(folder / name, COLUMNS, rows[start : start + per_shard])
    write_index(folder, entries, ["even", "odd"], 0)
    return folder


def test_rows_come_back_as_they_were_written(tmp_path):
    table = Table(write(tmp_path), "train", COLUMNS)
    assert len(table) == 7
    assert table.classes == ["even", "odd"]
    assert list(table.lengths("audio")) == list(range(7))
    assert table.column("label") == [0, 1, 0, 1, 0, 1, 0]
    for number, row in enumerate(ROWS):
        np.testing.assert_array_equal(table[number]["audio"], row["audio"])
        assert table[number]["id"] == row["id"]
    assert [len(chunk) for chunk in table.chunks(4)] == [4, 3]


@given(
    rows=st.lists(
        st.fixed_dictionaries(
            {"id": st.text(max_size=5), "label": st.none() | st.integers(0, 9), "text": st.none() | st.text(max_size=9)}
            | {"audio": st.lists(st.integers(-(2**15), 2**15 - 1), max_size=70).map(np.int16)}
            | {"labels": st.none() | st.lists(st.integers(0, 9), max_size=3)}
        ),
        max_size=70,
    )
)
def test_rows_gathered_by_columns_are_the_bytes_of_arrow_s_own_arrays(rows):
    columns, expected, found = COLUMNS.append(LABELS), pa.BufferOutputStream(), pa.BufferOutputStream()
    arrays = [pa.array([row[field.name] for row in rows], field.type) for field in columns]
    with pa.ipc.new_file(expected, columns) as writer:
        writer.write_batch(pa.record_batch(arrays, schema=columns))
    gathered = Rows(columns)
    for row in rows:
        gathered.add(row)
    gathered.write(found)
    assert len(gathered) == len(rows)
    assert found.getvalue() == expected.getvalue()


def test_numbers_that_a_column_cannot_hold_are_refused():
    with pytest.raises(pa.ArrowInvalid):
        Rows(COLUMNS).add({"id": "a", "audio": np.array([40000])})


def test_the_digest_follows_the_content(tmp_path):
    first = digest(write(tmp_path / "a"))
    assert first == digest(write(tmp_path / "b"))
    assert first != digest(write(tmp_path / "c", ROWS[:-1]))


def test_other_tools_open_the_shards_as_they_are(tmp_path):
    frame = pl.read_ipc(write(tmp_path) / "train-00001.arrow")
    assert frame["id"].to_list() == ["row3", "row4", "row5"]
    assert frame["audio"].list.len().to_list() == [3, 4, 5]


def test_a_cut_file_is_refused_wherever_it_is_cut(tmp_path):
    path = write(tmp_path) / "train-00000.arrow"
    whole = path.read_bytes()
    for size in range(0, len(whole), 37):
        path.write_bytes(whole[:size])
        with pytest.raises(UserError, match=r"train-00000\.arrow"):
            Table(tmp_path, "train", COLUMNS)


def test_a_damaged_index_is_one_sentence(tmp_path):
    (write(tmp_path) / "index.json").write_text("{")
    with pytest.raises(UserError, match=r"index\.json is damaged"):
        Table(tmp_path, "train", COLUMNS)


@pytest.mark.parametrize(
    ("folder", "split", "columns", "message"),
    [
        ("table", "test", COLUMNS, "no rows in its 'test' split"),
        ("table", "train", schema(image=pa.uint8()), "no column 'image'"),
        ("table", "train", schema(audio=pa.float32()), "no column 'audio' of type list"),
        ("nothing", "train", COLUMNS, "is not a prepared table"),
    ],
)
def test_what_does_not_fit_is_one_sentence(tmp_path, folder, split, columns, message):
    write(tmp_path / "table")
    with pytest.raises(UserError, match=message):
        Table(tmp_path / folder, split, columns)
