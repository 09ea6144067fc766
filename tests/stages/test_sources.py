"""Where bytes are: files, links, URLs, archives and rows of tables give the same bytes by their locations."""

import bz2
import gzip
import io
import json
import lzma
import os
import tarfile
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from d2v_core.errors import Dropped, UserError
from stages import archives, sources

pytestmark = pytest.mark.usefixtures("home")
NAMES = ["a b.txt", "line\nbreak.txt", "ünïcode/日本語.txt", "deep/er/x.txt", "hash#1/y.txt", "bang!/z.txt"]


def write(path: str, content: bytes = b"x") -> Path:
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    return file


def zstandard(content: bytes) -> bytes:
    return pa.Codec("zstd").compress(content, asbytes=True)


PACKERS = {".tar": bytes, ".tar.gz": gzip.compress, ".tgz": gzip.compress, ".tar.xz": lzma.compress}
PACKERS |= {".tar.bz2": bz2.compress, ".tar.zst": zstandard}


def tar(members: dict[str, bytes | tarfile.TarInfo]) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        for name, member in members.items():
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
            else:
                info = tarfile.TarInfo(name)
                info.size = len(member)
                archive.addfile(info, io.BytesIO(member))
    return content.getvalue()


def link(name: str, target: str, kind: bytes) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def test_a_folder_is_listed_by_name_without_hidden_files():
    for name in [*NAMES, ".hidden/a.txt", "deep/.b.txt"]:
        write(f"corpus/{name}", name.encode())
    found = sources.listing("corpus/")
    assert list(found) == sorted(NAMES)
    for name, location in found.items():
        assert sources.open_bytes(location) == name.encode()
        assert sources.size(location) == len(name.encode())
        assert sources.digest(location) == blake3(name.encode()).hexdigest()
        assert sources.local_path(location).read_bytes() == name.encode()


def test_links_are_followed_once_and_loops_left_out():
    write("other/x.txt", b"x")
    write("corpus/a/y.txt", b"y")
    os.symlink("../other", "corpus/linked")
    os.symlink("..", "corpus/a/up")
    os.symlink("self", "corpus/self")
    os.symlink("nowhere.txt", "corpus/gone.txt")
    os.mkfifo("corpus/pipe.txt")
    found = sources.listing("corpus")
    assert list(found) == ["a/y.txt", "gone.txt", "linked/x.txt", "self"]
    assert sources.open_bytes(found["linked/x.txt"]) == b"x"
    with pytest.raises(FileNotFoundError):
        sources.open_bytes(found["gone.txt"])
    with pytest.raises(Dropped, match="not a regular file"):
        sources.open_bytes("corpus/pipe.txt")


def test_a_name_that_is_not_utf_8_is_counted_and_cannot_be_read():
    write("corpus/a.txt")
    with open(b"corpus/caf\xe9.txt", "wb") as file:
        file.write(b"x")
    found = sources.listing("corpus")
    assert list(found) == ["a.txt", "caf\\xe9.txt"]
    with pytest.raises(FileNotFoundError):
        sources.open_bytes(found["caf\\xe9.txt"])


@pytest.mark.skipif(os.geteuid() == 0, reason="permissions mean nothing to the superuser")
def test_a_folder_that_may_not_be_listed_is_named():
    write("corpus/a/x.txt")
    os.chmod("corpus/a", 0)
    with pytest.raises(UserError, match="corpus/a cannot be listed"):
        sources.listing("corpus")
    os.chmod("corpus/a", 0o700)


@pytest.mark.parametrize("suffix", PACKERS)
def test_archives_are_read_in_any_order_without_unpacking(suffix):
    members = {name: (name * 50).encode() for name in NAMES}
    write(f"corpus/in/all{suffix}", PACKERS[suffix](tar(members)))
    found = sources.listing("corpus")
    assert found == {f"in/{name}": f"corpus/in/all{suffix}!/{name}" for name in sorted(NAMES)}
    assert sources.listing(f"corpus/in/all{suffix}") == {name: found[f"in/{name}"] for name in sorted(NAMES)}
    for name in [*NAMES, *reversed(NAMES)]:
        location = found[f"in/{name}"]
        assert sources.open_bytes(location) == members[name]
        assert sources.size(location) == len(members[name])
        assert sources.digest(location) == blake3(members[name]).hexdigest()
    assert os.listdir("corpus/in") == [f"all{suffix}"]


@pytest.mark.parametrize("suffix", [".tar.gz", ".tar.xz", ".tar.zst"])
def test_a_large_compressed_archive_is_not_held_in_memory(suffix, monkeypatch):
    monkeypatch.setattr(archives, "HELD", 4096)
    members = {f"{number:03d}.txt": os.urandom(1000) for number in range(30)}
    write(f"large{suffix}", PACKERS[suffix](tar(members)))
    found = sources.listing(f"large{suffix}")
    assert not isinstance(sources.open_archive(f"large{suffix}").stream, io.BytesIO)
    for name in [*members, *reversed(members)]:
        assert sources.open_bytes(found[name]) == members[name]


def test_an_archive_is_indexed_once_and_again_when_it_changes(monkeypatch):
    write("a.tar", tar({"x": b"1", "y": b"2"}))
    count = []
    first = archives.regular_members
    monkeypatch.setattr(archives, "regular_members", lambda stream: count.append(1) or first(stream))
    for location in sources.listing("a.tar").values():
        sources.open_bytes(location)
    assert len(count) == 1
    write("a.tar", tar({"x": b"123", "z": b"4" * 9000}))
    assert list(sources.listing("a.tar")) == ["x", "z"]
    assert sources.open_bytes("a.tar!/x") == b"123"
    assert len(count) == 2


def test_links_devices_and_ways_out_of_an_archive_are_left_out():
    members = {
        "good.txt": b"good",
        "./also/./good.txt": b"too",
        "../out.txt": b"x",
        "a/../../out.txt": b"x",
        "/etc/out.txt": b"x",
        "soft.txt": link("soft.txt", "/etc/passwd", tarfile.SYMTYPE),
        "hard.txt": link("hard.txt", "good.txt", tarfile.LNKTYPE),
        "device.txt": link("device.txt", "", tarfile.CHRTYPE),
        "pipe.txt": link("pipe.txt", "", tarfile.FIFOTYPE),
    }
    write("a.tar", tar(members))
    assert list(sources.listing("a.tar")) == ["also/good.txt", "good.txt"]
    with pytest.raises(FileNotFoundError, match="has no member"):
        sources.open_bytes("a.tar!/../out.txt")


@pytest.mark.parametrize("suffix", PACKERS)
@pytest.mark.parametrize("damage", ["cut off", "garbage", "empty"])
def test_a_damaged_archive_is_named(suffix, damage):
    content = PACKERS[suffix](tar({"x": os.urandom(30000)}))
    content = {"cut off": content[: len(content) // 2], "garbage": os.urandom(2000), "empty": b""}[damage]
    write(f"a{suffix}", content)
    with pytest.raises(UserError, match=r"a\.t\S+ is a damaged archive"):
        sources.listing(f"a{suffix}")


def test_items_above_the_limit_are_dropped_before_they_are_read():
    write("a.txt", b"12345")
    write("a.tar", tar({"b.txt": b"12345"}))
    for location in ("a.txt", "a.tar!/b.txt"):
        assert sources.open_bytes(location, largest=5) == b"12345"
        with pytest.raises(Dropped) as caught:
            sources.open_bytes(location, largest=4)
        assert caught.value.reason == "too large"


def test_urls_are_listed_and_read_like_folders():
    with fsspec.open("memory://bucket/corpus/train/a b.txt", "wb") as file:
        file.write(b"hello")
    with fsspec.open("memory://bucket/corpus/more.tar", "wb") as file:
        file.write(tar({"dev/c.txt": b"there"}))
    found = sources.listing("memory://bucket/corpus")
    assert list(found) == ["dev/c.txt", "train/a b.txt"]
    assert [sources.open_bytes(location) for location in found.values()] == [b"there", b"hello"]
    assert [sources.size(location) for location in found.values()] == [5, 5]
    assert sources.digest(found["train/a b.txt"]) == blake3(b"hello").hexdigest()
    assert sources.local_path(found["train/a b.txt"]) is None
    assert list(sources.listing("memory://bucket/corpus/more.tar")) == ["dev/c.txt"]
    with pytest.raises(UserError, match="is empty or not there"):
        sources.listing("memory://bucket/nothing")
    with pytest.raises(UserError, match="cannot be opened"):
        sources.listing("nosuch://bucket/corpus")


def test_what_is_fetched_for_its_digest_is_not_fetched_again(monkeypatch):
    write("a.tar", tar({"x": b"12345"}))
    with fsspec.open("memory://bucket/once/a.txt", "wb") as file:
        file.write(b"hello")
    reads, system = [], fsspec.filesystem("memory")
    opened, read = type(system).open, archives.Archive.read
    monkeypatch.setattr(type(system), "open", lambda *given, **named: reads.append(1) or opened(*given, **named))
    monkeypatch.setattr(archives.Archive, "read", lambda *given: reads.append(2) or read(*given))
    for location, kind in (("memory://bucket/once/a.txt", 1), ("a.tar!/x", 2)):
        for room, count in ((100, 1), (4, 2)):
            monkeypatch.setattr(sources, "HELD", room)
            reads.clear()
            with sources.reading_once():
                found = blake3(sources.open_bytes(location)).hexdigest()
                assert sources.digest(location) == found
            assert reads.count(kind) == count
            sources.open_bytes(location)
            assert reads.count(kind) == count + 1  # nothing is kept after the block


ROWS = [{"audio": {"bytes": bytes([number]) * 9, "path": "x.wav"}, "text": f"row {number}"} for number in range(25)]


@pytest.mark.parametrize("suffix", [".parquet", ".arrow", ".stream.arrow"])
def test_rows_of_columnar_files_are_bytes(suffix):
    table = pa.Table.from_pylist([*ROWS, {"audio": None, "text": None}])
    if suffix == ".parquet":
        pq.write_table(table, "a.parquet", row_group_size=4)
    else:
        kind = pa.ipc.new_stream if "stream" in suffix else pa.ipc.new_file
        with kind(f"a{suffix}", table.schema) as writer:
            writer.write_table(table, max_chunksize=4)
    write("a.tar", tar({f"in{suffix}": Path(f"a{suffix}").read_bytes()}))
    for place in (f"a{suffix}", f"a.tar!/in{suffix}"):
        for row in [*range(25), 3, 20]:
            assert sources.open_bytes(f"{place}#{row}/audio") == bytes([row]) * 9
            assert sources.open_bytes(f"{place}#{row}/text") == f"row {row}".encode()
        with pytest.raises(Dropped, match="no content"):
            sources.open_bytes(f"{place}#25/audio")
        assert sources.size(f"{place}#3/text") == 5
        assert sources.digest(f"{place}#3/text") == blake3(b"row 3").hexdigest()


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_lines_of_json_are_found_by_the_byte_where_they_begin(suffix):
    texts = ["one", "zwei ä", "drei\nlines", "", "five" * 100]
    content = "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n\n" for text in texts).encode()
    write(f"a.jsonl{suffix}", {"": bytes, ".gz": gzip.compress, ".zst": zstandard}[suffix](content))
    places = list(sources.line_places(f"a.jsonl{suffix}"))
    for place, text in [*zip(places, texts, strict=True), *reversed(list(zip(places, texts, strict=True)))]:
        assert sources.open_bytes(f"a.jsonl{suffix}#{place}/text").decode() == text
    with pytest.raises(Dropped, match="no content"):
        sources.open_bytes(f"a.jsonl{suffix}#{places[0]}/other")


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=20)


@settings(max_examples=60)
@given(members=st.dictionaries(TEXT, st.binary(max_size=2000), min_size=1, max_size=8), order=st.randoms())
def test_whatever_is_put_into_an_archive_comes_out(members, order, tmp_path_factory):
    path = tmp_path_factory.mktemp("any") / "a.tar.gz"
    kept = {name: content for name, content in members.items() if not name.startswith(".")}
    path.write_bytes(gzip.compress(tar(members), 1))
    archives_inside = {name for name in kept if name.lower().endswith(sources.ARCHIVES)}
    found = sources.listing(str(path))
    assert set(found) == set(kept)
    for name in order.sample(sorted(set(kept) - archives_inside), len(kept) - len(archives_inside)):
        assert sources.open_bytes(found[name]) == kept[name]
