"""Stage ``vocabulary``: the symbols of a modality, learnt from the training split of its corpus.

Text gets sentencepiece pieces or those of a published tokenizer, speech the letters of its transcripts, vision none.
"""

import io
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import polars as pl

from d2v_core.config import require
from d2v_core.data.files import publish_folder
from d2v_core.errors import Dropped, UserError
from stages import params, readers, runner, tokenizer
from stages.layouts import CorpusConfig, manifest
from stages.paths import VOCABULARIES

SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "|"]  # the blank of CTC is <s>, a word ends with | (reference 6.1)
LONGEST_PART = 2**14  # characters of a line to learn from
LONGEST_LINE = 2**24  # bytes; sentencepiece would leave out lines above 4192, which documents without line breaks are


@dataclass(frozen=True)
class VocabularyConfig:
    """The block ``vocabulary``; ``coverage`` and ``lowercase`` are for pieces, ``path`` is that of a tokenizer."""

    kind: Literal["pieces", "tokenizer", "letters", "none"]
    coverage: float = 0.9995
    lowercase: bool = False
    path: str = ""

    def __post_init__(self) -> None:
        require(0 < self.coverage <= 1, f"coverage must be in (0, 1], not {self.coverage}.")
        require(bool(self.path) == (self.kind == "tokenizer"), "path must be given for a tokenizer, and for it alone.")


def main(name: str) -> None:
    """Write ``data/vocabulary/<name>/``: ``vocabulary.json`` and, for text, its pieces or its tokenizer."""
    config = params.read(VocabularyConfig, f"modalities.{name}.vocabulary")
    symbols: list[str] = []
    with publish_folder(VOCABULARIES / name) as folder:
        if config.kind == "letters":
            symbols = SPECIAL + letters(training_items(name))
        elif config.kind in ("pieces", "tokenizer"):
            size = params.get(f"modalities.{name}.table.vocabulary", int)
            if config.kind == "tokenizer":
                symbols = tokenizer.copy(Path(config.path), folder / tokenizer.FILE, size)
            else:
                symbols = train_pieces(folder / "pieces.model", training_items(name), size - 1, config)
        (folder / "vocabulary.json").write_text(
            json.dumps({"symbols": symbols}, ensure_ascii=False, indent=0) + "\n", "utf-8"
        )
    print(f"{name}: {len(symbols)} symbols")


def training_items(name: str) -> pl.DataFrame:
    """Return the manifest of the training split of modality ``name``."""
    corpus = params.read(CorpusConfig, f"modalities.{name}.corpus")
    return manifest(corpus, params.get("seed")).filter(pl.col("split") == "train")


def letters(items: pl.DataFrame) -> list[str]:
    """Return the characters of all transcripts but the space, the most frequent first."""
    counts = Counter("".join(items["text"].drop_nulls()))
    return [letter for letter, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0])) if letter.strip()]


def train_pieces(path: Path, items: pl.DataFrame, size: int, config: VocabularyConfig) -> list[str]:
    """Train a sentencepiece unigram model of ``size`` pieces on the documents, write it, and return its pieces."""
    from sentencepiece import SentencePieceProcessor, SentencePieceTrainer

    lines = (line for document in documents(items) for line in document.splitlines() if line)
    model = io.BytesIO()
    try:
        SentencePieceTrainer.train(
            sentence_iterator=lines, model_writer=model, vocab_size=size, model_type="unigram", minloglevel=2,
            character_coverage=config.coverage, max_sentence_length=LONGEST_LINE, num_threads=1,
            normalization_rule_name="nmt_nfkc_cf" if config.lowercase else "nmt_nfkc",
            bos_id=0, pad_id=1, eos_id=2, unk_id=3,
        )  # fmt: skip
    except RuntimeError as error:
        reason = str(error).rpartition("] ")[2] or "there is no text"
        raise UserError(f"no vocabulary of {size} pieces can be made ({reason}); change table.vocabulary.") from None
    path.write_bytes(model.getvalue())
    processor = SentencePieceProcessor(model_proto=model.getvalue())
    return [processor.id_to_piece(number) for number in range(size)] + ["<mask>"]


def documents(items: pl.DataFrame) -> Iterator[str]:
    """Yield the text of every item: what its file holds, or its sentences; what cannot be read is left out."""
    for path, *sentences in items.select("path", "text", "pair").iter_rows():
        if not path:
            yield broken("\n".join(sentence.replace("\0", " ") for sentence in sentences if sentence))
            continue
        try:
            yield broken(readers.read_text(path, "replace"))
        except (Dropped, OSError):  # prepare counts it
            continue


def broken(text: str) -> str:
    """Return ``text`` with long lines broken up: sentencepiece would take hours over one that repeats itself."""
    return "\n".join(part for line in text.splitlines() for part in readers.stretches(line, LONGEST_PART))


if __name__ == "__main__":
    runner.run(main)
