"""Stage ``language_model``: transcripts, or any text, → an n-gram model in ARPA form for the beam search.

Interpolated modified Kneser-Ney of words or of letters (reference 6.1). Nothing maintained on the package index trains
one: kenlm's package only asks models, and nltk knows one discount and no ARPA files.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from d2v_core import modalities
from d2v_core.config import require
from d2v_core.data.files import publish_folder
from d2v_core.data.table import SPLITS, Table
from d2v_core.errors import UserError
from d2v_core.evaluation import arpa, kneser_ney
from d2v_core.evaluation.ctc import WORD_END
from d2v_core.evaluation.ngram import UNKNOWN, NGram
from stages import params, runner, training
from stages.paths import METRICS, MODELS, TABLES

FILE = "model.arpa.gz"


@dataclass(frozen=True)
class LanguageModelConfig:
    """The block ``language.<name>``.

    The text is that of the training transcripts of ``table``, or the file ``text`` with a sentence per line (.gz is
    unpacked). Words, or letters with ``|`` after every word; n-grams of up to ``order`` of them.
    """

    modality: str
    table: str
    unit: Literal["words", "letters"]
    order: int
    text: str = ""

    def __post_init__(self) -> None:
        require(self.order > 0, f"order must be positive, not {self.order}.")


def main(name: str) -> None:
    """Write ``models/language/<name>`` and, of held-out transcripts, perplexity and unknown units to ``metrics``."""
    where = f"language.{name}"
    config = params.read(LanguageModelConfig, where)
    lines = read_text(Path(config.text)) if config.text else transcripts(config, "train")
    try:
        model = kneser_ney.train((units(line, config.unit) for line in lines if line.split()), config.order)
    except ValueError as error:
        source = config.text or TABLES / config.table
        raise UserError(f"{source} makes no language model: {error}; change {where} in {params.PATH}.") from None
    with publish_folder(folder(name)) as temporary:
        arpa.write_arpa(temporary / FILE, model)
        (temporary / "config.json").write_text(json.dumps(asdict(config), indent=1, sort_keys=True) + "\n")
    metrics = {split: scores(model, config, split) for split in SPLITS}
    counts = [len(grams.words) for grams in model.grams()]
    training.write_json(METRICS / name / "language_model.json", {"n_grams": counts, **metrics})
    shown = ", ".join(f"{values['perplexity']} on {split}" for split, values in metrics.items() if values)
    print(f"{name}: {counts[0]} {config.unit}, {sum(counts)} n-grams; perplexity {shown}")


def folder(name: str) -> Path:
    """Return where the language model ``name`` is published."""
    return MODELS / "language" / name


def units(line: str, unit: str) -> list[str]:
    """Return the words of a line, or its letters with ``|`` after every word."""
    return line.split() if unit == "words" else [*WORD_END.join(line.split()), WORD_END]


def read_text(path: Path) -> list[str]:
    """Return the lines of a text file; raise UserError when it is missing or not UTF-8."""
    try:
        with arpa.open_bytes(path) as lines:
            return lines.read().decode("utf-8").splitlines()
    except FileNotFoundError:
        raise UserError(f"{path} is missing; correct `text` of the language model in {params.PATH}.") from None
    except (UnicodeDecodeError, OSError, EOFError) as error:
        raise UserError(f"{path} cannot be read as text ({error}); convert or replace it.") from None


def transcripts(config: LanguageModelConfig, split: str) -> list[str]:
    """Return the transcripts of one split that are not empty; none when the table has no such split."""
    columns = modalities.get(config.modality).columns
    try:
        table = Table(TABLES / config.table, split, columns)
    except UserError:
        if split == "train":
            raise
        return []
    return [text for text in table.column("text") if text and text.split()]


def scores(model: NGram, config: LanguageModelConfig, split: str) -> dict[str, float]:
    """Return the perplexity of one split, that of guessing, and the share of its units that the model does not know."""
    sentences: Sequence[list[str]] = [units(line, config.unit) for line in transcripts(config, split)]
    if not sentences:
        return {}
    unknown = [model.number(unit) == model.numbers[UNKNOWN] for sentence in sentences for unit in sentence]
    return {
        "perplexity": round(model.perplexity(sentences), 3),
        "uniform_perplexity": len(model.words) - 1,
        "unknown_percent": round(100 * sum(unknown) / len(unknown), 3),
    }


if __name__ == "__main__":
    runner.run(main)
