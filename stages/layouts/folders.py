"""Layouts in which folders and file names say everything."""

import re
from collections.abc import Callable, Iterator

from stages import sources
from stages.layouts.config import CorpusConfig
from stages.layouts.files import ARRAYS, AUDIO, COLUMNAR, DOCUMENTS, IMAGES, JSON_LINES, Files, Record, part_of, stem
from stages.layouts.parquet import parquet
from stages.layouts.tables import need, read_delimited, read_lines

SPEAKER = re.compile(r"_nohash_.*")
BACKGROUND = "_background_noise_"


def librispeech(files: Files, corpus: CorpusConfig) -> Iterator[Record]:
    """Read ``[<part>-*/]<speaker>/<chapter>/<utterance>.flac``, with transcripts in ``*.trans.txt`` if there are any.

    A ``splits.tsv`` at the root, with columns utt_id and split, names the parts if it is there.
    """
    listed = {}
    if listing := files.locations.get("splits.tsv"):
        for row in read_delimited(listing):
            need(listing, row, ("utt_id", "split"), "add them or remove the file")
            listed[row["utt_id"]] = row["split"]
    transcripts = dict(
        line.rstrip().split(maxsplit=1) for name, location in files.having((".trans.txt",))
        for line in read_lines(location, corpus.encoding_errors) if len(line.split()) > 1
    )  # fmt: skip
    for name, location in files.having(AUDIO):
        utterance = stem(name).rpartition("/")[2]
        part = listed.get(utterance) or part_of(name.partition("/")[0], corpus.parts)
        speaker, words = utterance.split("-")[0], transcripts.get(utterance)
        yield {"id": utterance, "path": location, "part": part, "group": speaker, "text": words}


def labelfolders(files: Files, corpus: CorpusConfig) -> Iterator[Record]:
    """Read ``[<part>/]<label>/.../<audio>``; as in Speech Commands lists name parts, ``_nohash_`` ends a speaker."""
    listed: dict[str, str] = {}
    for listing, part in (("validation_list.txt", "valid"), ("testing_list.txt", "test")):
        if location := files.locations.get(listing):
            listed |= {line.strip(): part for line in read_lines(location) if line.strip()}
    for name, record in in_folders(files, AUDIO, corpus, labelled=True):
        if record["label"] != BACKGROUND:
            speaker = SPEAKER.sub("", stem(name).rpartition("/")[2]) if "_nohash_" in name else record["group"]
            yield record | {"part": listed.get(name) or record["part"], "group": speaker}


def imagefolder(files: Files, corpus: CorpusConfig) -> Iterator[Record]:
    """Read ``[<part>/]<class>/.../<image>``; the class is the label."""
    yield from (record for _, record in in_folders(files, IMAGES, corpus, labelled=True))


def text(files: Files, corpus: CorpusConfig) -> Iterator[Record]:
    """Read documents: ``[<part>/].../<document>.txt``, lines of ``.jsonl``, rows of Parquet with a column of text."""
    yield from (record for _, record in in_folders(files, DOCUMENTS, corpus, labelled=False))
    column = corpus.sentence or "text"
    for name, location in files.having(JSON_LINES):
        part = next(filter(None, (part_of(word, corpus.parts) for word in stem(name).split("/"))), None)
        for place in sources.line_places(location):
            item = f"{stem(name)}-{place:012d}"
            yield {"id": item, "path": f"{location}#{place}/{column}", "part": part, "group": item}
    if any(files.having(COLUMNAR)):
        yield from (record | {"label": None} for record in parquet(files, corpus, documents=True))


def arrays(files: Files, corpus: CorpusConfig) -> Iterator[Record]:
    """Read ``[<part>/]<class>/.../<array>.npy``: any modality whose data come as NumPy arrays."""
    yield from (record for _, record in in_folders(files, ARRAYS, corpus, labelled=True))


def in_folders(
    files: Files, suffixes: tuple[str, ...], corpus: CorpusConfig, labelled: bool
) -> Iterator[tuple[str, Record]]:
    """Yield names and records of the files whose first folder may name a part and whose next names the label."""
    for name, location in files.having(suffixes):
        *folders, _ = name.split("/")
        item = stem(name)
        part = folders.pop(0) if folders and folders[0] in corpus.parts else None
        label = folders[0] if labelled and folders else None
        yield name, {"id": item, "path": location, "part": part, "group": item, "label": label}


FOLDERS: dict[str, Callable[[Files, CorpusConfig], Iterator[Record]]] = {
    "librispeech": librispeech,
    "labelfolders": labelfolders,
    "imagefolder": imagefolder,
    "text": text,
    "arrays": arrays,
}
