"""Corpora as people have them → one manifest: which items there are, what they are called, where they belong.

A layout is a function from the files of a corpus to records with ``id``, ``path`` (a location of ``stages.sources``,
None for an item that is its text), ``part`` (the corpus's own name of a split, or None), ``group`` (what must not be
torn apart when splits are made: a speaker, a document), ``label``, ``text``, and for text ``pair`` and ``score``.
"""

from collections.abc import Callable, Iterator

import polars as pl

from d2v_core.errors import UserError
from stages.layouts.automatic import fitting
from stages.layouts.config import CorpusConfig
from stages.layouts.files import Files, Record, read_files
from stages.layouts.folders import FOLDERS
from stages.layouts.glue import glue
from stages.layouts.parquet import parquet
from stages.layouts.splits import assign_splits
from stages.layouts.tables import common_voice, manifest_file, tsv

COLUMNS = dict.fromkeys(("id", "path", "part", "group", "label", "text", "pair", "score"), pl.String)
LAYOUTS: dict[str, Callable[[Files, CorpusConfig], Iterator[Record]]] = FOLDERS | {
    "common_voice": common_voice,
    "tsv": tsv,
    "glue": glue,
    "manifest": manifest_file,
    "parquet": parquet,
}


def manifest(corpus: CorpusConfig, seed: int) -> pl.DataFrame:
    """Return the corpus's items, sorted by id, with a ``split`` each.

    The columns are id, path, split, label, text, pair, score and encoding_errors, all strings or null. Raises UserError
    when the corpus is missing, holds nothing in this layout, or leaves nothing to train on.
    """
    files = read_files(corpus)
    layout = fitting(files) if corpus.layout == "auto" and files.locations else corpus.layout
    found = LAYOUTS[layout](files, corpus) if layout in LAYOUTS else ()
    items = pl.DataFrame(list(found), schema=COLUMNS)
    if items.is_empty():
        raise UserError(
            f"{corpus.raw} holds nothing in the {layout!r} layout; check `raw` and `layout` in params.yaml."
        )
    items = assign_splits(items.sort("id", "path"), corpus, seed)
    if (items["split"] == "train").sum() == 0:
        raise UserError(f"{corpus.raw} has nothing in its 'train' split; check `parts` and `holdout` in params.yaml.")
    items = items.with_columns(encoding_errors=pl.lit(corpus.encoding_errors))
    return items.select("id", "path", "split", "label", "text", "pair", "score", "encoding_errors")
