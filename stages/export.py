"""Stage ``export``: a run → a folder that Hugging Face's classes and pipelines load."""

import json
from pathlib import Path

from d2v_core.errors import UserError
from d2v_core.interop.huggingface import CONFIG, write_folder
from d2v_core.run import read_config, read_weights
from stages import runner, tokenizer
from stages.paths import VOCABULARIES


def main(run: str, folder: str, vocabulary: str = "") -> None:
    """Write the run at ``run`` to ``folder``; a run of text needs its vocabulary, data/vocabulary/text by default."""
    config, target = read_config(Path(run)), Path(folder)
    if target.exists() and any(target.iterdir()) and not exported(target):
        raise UserError(f"{folder} holds something else; name a new folder.")
    pieces = None
    if "vocabulary" in config["table"]:
        source = Path(vocabulary) if vocabulary else VOCABULARIES / config["modality"]
        pieces = tokenizer_of(source, config["table"]["vocabulary"])
    written = write_folder(target, config, read_weights(Path(run)), pieces)
    print(f"{run}: {written} in {folder}")


def exported(folder: Path) -> bool:
    """Tell whether ``folder`` is one of Hugging Face's, which may be replaced."""
    try:
        return "model_type" in json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False


def tokenizer_of(vocabulary: Path, size: int) -> str:
    """Return the content of ``tokenizer.json`` for a vocabulary folder of ``size`` symbols."""
    try:
        symbols = json.loads((vocabulary / "vocabulary.json").read_text(encoding="utf-8"))["symbols"]
    except (OSError, ValueError, KeyError):
        raise UserError(f"{vocabulary} is not a vocabulary folder; name the one of the run, after the run.") from None
    if len(symbols) != size:
        raise UserError(f"{vocabulary} has {len(symbols)} symbols, but the run {size}; name the vocabulary of the run.")
    if (vocabulary / tokenizer.FILE).exists():
        return (vocabulary / tokenizer.FILE).read_text(encoding="utf-8")
    return tokenizer.from_pieces(vocabulary / "pieces.model")


if __name__ == "__main__":
    runner.run(main)
