"""Layout ``auto``: the one layout that fits a corpus, where that is beyond doubt."""

import re
from collections.abc import Callable

from d2v_core.errors import UserError
from stages.layouts.files import ARRAYS, AUDIO, COLUMNAR, DELIMITED, DOCUMENTS, IMAGES, JSON_LINES, Files, stem
from stages.layouts.glue import PARTS, task_of
from stages.layouts.tables import CATEGORIES, MANIFESTS, SENTENCES, read_lines

UTTERANCE = re.compile(r"[^/-]+-[^/-]+-[^/-]+$")


def fitting(files: Files) -> str:
    """Return the layout that fits ``files``; raise UserError when none does, or more than one."""
    fits = [name for name, test in TESTS.items() if test(files)]
    if len(fits) == 1:
        print(f"{files.root}: layout {fits[0]!r}")
        return fits[0]
    found = f"fits {' and '.join(map(repr, fits))}" if fits else "fits no layout"
    raise UserError(f"{files.root} {found}; set `layout` in params.yaml (docs/corpora.md lists them).")


def has(*suffixes: str) -> Callable[[Files], bool]:
    """Return a test for files with one of ``suffixes``."""
    return lambda files: any(files.having(suffixes))


def names(files: Files, suffixes: tuple[str, ...]) -> list[str]:
    """Return the names of files without folders and suffixes."""
    return [stem(name).rpartition("/")[2] for name, _ in files.having(suffixes)]


def headers(files: Files) -> list[list[str]]:
    """Return the columns of every table of text, in the order of their names."""
    found = []
    for name, location in files.having(DELIMITED):
        line = next(read_lines(location, "replace"), "")
        found.append([column.strip('"') for column in line.rstrip("\r\n").split("\t" if name.endswith("tsv") else ",")])
    return found


def is_librispeech(files: Files) -> bool:
    """Tell whether audio is named by speaker, chapter and utterance, and no manifest names it otherwise."""
    utterances = names(files, AUDIO)
    return bool(utterances) and all(map(UTTERANCE.match, utterances)) and not is_manifest(files)


def is_common_voice(files: Files) -> bool:
    """Tell whether clips lie beside tables of their speakers and sentences."""
    return any({"client_id", "path", "sentence"} <= set(header) for header in headers(files))


def is_manifest(files: Files) -> bool:
    """Tell whether there is a table called manifest or metadata."""
    return any(name in MANIFESTS for name in names(files, (*DELIMITED, *JSON_LINES)))


def is_labelfolders(files: Files) -> bool:
    """Tell whether audio lies in several folders, under names that are no utterances of LibriSpeech's."""
    folders = {name.rpartition("/")[0] for name, _ in files.having(AUDIO)}
    several = len(folders) > 1 and "" not in folders
    return several and not (is_librispeech(files) or is_manifest(files) or is_common_voice(files))


def is_glue(files: Files) -> bool:
    """Tell whether the files have names and columns of a GLUE task; SST-2 is told by the lack of answers for test."""
    found = headers(files)
    tasks = {task_of(header) for header in found}
    headless = any(len(header) == 4 and header[1] in ("0", "1") for header in found)
    unanswered = "SST-2" in tasks and ["index", "sentence"] in found
    named = any(name in PARTS for name in names(files, (".tsv",)))
    return named and (headless or unanswered or bool(tasks - {None, "SST-2"}))


def is_tsv(files: Files) -> bool:
    """Tell whether tables have a column of text and one of labels, and neither name files nor are GLUE's."""
    labelled = any({*SENTENCES} & {*header} and {*CATEGORIES} & {*header} for header in headers(files))
    return labelled and not (is_glue(files) or is_manifest(files) or is_common_voice(files))


def is_text(files: Files) -> bool:
    """Tell whether there are documents and nothing that they could be the notes of."""
    others = (*AUDIO, *IMAGES, *ARRAYS, *DELIMITED, *COLUMNAR)
    return has(*DOCUMENTS, *JSON_LINES)(files) and not has(*others)(files) and not is_manifest(files)


TESTS: dict[str, Callable[[Files], bool]] = {
    "librispeech": is_librispeech,
    "common_voice": is_common_voice,
    "labelfolders": is_labelfolders,
    "imagefolder": lambda files: has(*IMAGES)(files) and not is_manifest(files),
    "text": is_text,
    "tsv": is_tsv,
    "glue": is_glue,
    "manifest": is_manifest,
    "parquet": has(*COLUMNAR),
    "arrays": has(*ARRAYS),
}
