"""Finished shards → a table. In a folder it appears at once, by a rename; at a URL its ``index.json`` comes last.

At a URL shards keep the names under which they were stored, which say what is in them: none is ever overwritten, so
that a table that is being replaced can still be read. Download such a table to train on it.
"""

import io
import os
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl

from d2v_core.data.files import publish_folder
from d2v_core.data.table import INDEX, index_of, write_index
from stages.preparation.store import Done, Store

REJECTED = "dropped.parquet"


def publish_table(
    store: str,
    target: Path | str,
    done: Sequence[tuple[str, Done]],
    dropped: pl.DataFrame,
    classes: Sequence[str],
    symbols: int,
    settings: Mapping[str, object],
) -> None:
    """Publish the shards ``done``, (split, outcome) each, as the table at ``target``, and remove all others."""
    kept = Store(store)
    if isinstance(target, Path):
        with publish_folder(target) as folder:
            for name, result in zip(names(done), [result for _, result in done], strict=True):
                link(Path(kept.at(result.file)), folder / name)
            dropped.write_parquet(folder / REJECTED)
            entries = {name: result.entry for name, (_, result) in zip(names(done), done, strict=True)}
            write_index(folder, entries, classes, symbols, settings)
    else:
        commit(kept, dropped, index_of({result.file: result.entry for _, result in done}, classes, symbols, settings))
    files = {result.file for _, result in done}
    kept.keep(files | {Path(file).with_suffix(".json").name for file in files} | {INDEX})


def names(done: Sequence[tuple[str, Done]]) -> list[str]:
    """Return ``<split>-<number>.arrow`` for every shard, numbered from 0 in every split."""
    sizes, found = Counter(split for split, _ in done), []
    seen: Counter[str] = Counter()
    for split, _ in done:
        digits = max(5, len(str(sizes[split] - 1)))
        found.append(f"{split}-{seen[split]:0{digits}d}.arrow")
        seen[split] += 1
    return found


def link(source: Path, target: Path) -> None:
    """Give a finished file a second name, or a copy where the file system has no links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def commit(store: Store, dropped: pl.DataFrame, index: str) -> None:
    """Write ``dropped.parquet``, then the index, which makes the shards that it names a table."""
    buffer = io.BytesIO()
    dropped.write_parquet(buffer)
    store.files.pipe_file(store.at(REJECTED), buffer.getvalue())
    store.files.pipe_file(store.at(INDEX), index.encode())
