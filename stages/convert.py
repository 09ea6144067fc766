"""``python -m stages.convert SOURCE FOLDER``: an official or a Hugging Face checkpoint → a run like those trained here.

A task starts from it by ``pretrained: FOLDER``, pretraining by the line ``pretrain.start`` that is printed;
``d2v_core.load`` takes any folder.
"""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from torch import Tensor

from d2v_core.errors import UserError
from d2v_core.interop import fairseq, huggingface
from d2v_core.run import CONFIG, WEIGHTS, digest, read_config, write_run
from stages import runner

PARTS = ("encoder", "head", "teacher")
SHOWN = 12  # names in a line


def main(source: str, folder: str) -> None:
    """Publish a checkpoint, ``source`` is a file of fairseq or BEiT or a Hugging Face folder, as the run ``folder``."""
    check_target(Path(folder))
    reader = huggingface.read_folder if Path(source).is_dir() else fairseq.read_file
    config, weights = reader(Path(source))
    write_run(Path(folder), config, weights)
    print("\n".join(summary(config, weights, folder)))


def check_target(folder: Path) -> None:
    """Raise UserError when ``folder`` is there and is neither empty nor a run, which may be replaced."""
    if not folder.exists() and not folder.is_symlink():
        return
    files = {path.name for path in folder.iterdir()} if folder.is_dir() and not folder.is_symlink() else {folder.name}
    if files and not (files == {CONFIG, WEIGHTS} and is_run(folder)):
        raise UserError(f"{folder} is there and is not a run folder; give the name of a new one.")


def is_run(folder: Path) -> bool:
    """Tell whether config.json in ``folder`` is a run's, and not one of Hugging Face's or damaged."""
    with suppress(UserError):
        return {"modality", "model"} <= read_config(folder).keys()
    return False


def summary(config: Mapping, weights: Mapping[str, Tensor], folder: str) -> list[str]:
    """Return what a person wants to know of the run, in lines."""
    trunk, kind = config["model"]["trunk"], config.get("head")
    sizes = {name: tensor.numel() for name, tensor in weights.items()}
    parts = {part: sum(size for name, size in sizes.items() if name.startswith(f"{part}.")) for part in PARTS}
    counts = ", ".join(f"{part} {size:,}" for part, size in parts.items() if size)
    trained = f"fine-tuned, head {kind!r} of {len(config['symbols'])} symbols" if kind else "pretrained"
    lines = [
        f"{folder}: {config['modality']}, data2vec {config['version']}.0, {trained}, from {config['source']}",
        f"  {trunk['depth']} blocks of width {trunk['width']} with {trunk['heads']} heads; parameters: {counts}",
    ]
    if config.get("assumed"):
        assumed = [f"{name} {value}" for name, value in config["assumed"].items()]
        lines.append(f"  not in the file, taken as published: {shortened(assumed)}")
    if config.get("ignored"):
        lines.append(f"  ignored: {shortened(config['ignored'])}")
    lines.append(f"  to go on pretraining from it: pretrain.start: {folder}@{digest(Path(folder))}")
    return lines


def shortened(names: list[str]) -> str:
    """Return names in one line, the first ones of many."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


if __name__ == "__main__":
    runner.run(main)
