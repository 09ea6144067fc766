"""Folders with a model class of their own, for runs that Hugging Face's library has no class for (reference 5, 8.4).

Their weights and their configuration are ours by our names, so that nothing is lost on the way. Beside them is a copy
of ``remote/modeling_data2vec2.py``, which the library runs when it is told to trust it; nothing here imports it.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from torch import Tensor

from d2v_core.interop import huggingface_speech, huggingface_text, huggingface_vision
from d2v_core.interop.names import Names, class_names

FORMATS = {"speech": huggingface_speech, "text": huggingface_text, "vision": huggingface_vision}
MODULE = "modeling_data2vec2.py"
SOURCE = Path(__file__).parent / "remote" / MODULE
TYPE, PREFIX = "data2vec2", "data2vec2."
ARCHITECTURES = {None: "Data2Vec2Model", "ctc": "Data2Vec2ForCTC"}
ARCHITECTURES |= dict.fromkeys(("mean", "class", "first", "score"), "Data2Vec2ForClassification")
AUTO = {  # the library's name for the class with a head
    "speech": ("AutoModelForCTC", "Data2Vec2ForCTC"),
    "vision": ("AutoModelForImageClassification", "Data2Vec2ForClassification"),
    "text": ("AutoModelForSequenceClassification", "Data2Vec2ForClassification"),
}
READ_TOO, IGNORED = (), ()
CLASSIFIES = ("mean", "class", "first", "score")
BLANK = ["<pad>", "<s>"]  # what the library calls our first two letters, of which the first is the blank of CTC
OURS = [ours for form in FORMATS.values() for ours in form.NAMES] + ["local.alibi_scale", "local.relative_bias"]
NAMES = {ours: ours for ours in OURS}
HEADS = {kind: {ours: ours for ours in names} for form in FORMATS.values() for kind, names in form.HEADS.items()}
FIXED: Mapping = {}
DEFAULTS: Mapping = {}
BLOCKS = ("modality", "version", "table", "model")


def read_block(theirs: Mapping, read: Callable[[str], Mapping]) -> dict:
    """Return the version and the blocks ``table`` and ``model``, as a run has them."""
    return {key: theirs.get(key) for key in ("version", "table", "model")}


def write_config(config: Mapping, head: str | None) -> dict:
    """Return the values of the configuration of a run, whose letters are named like its classes."""
    modality = config["modality"]
    auto, architecture = AUTO[modality]
    classes = {"AutoConfig": "Data2Vec2Config", "AutoModel": ARCHITECTURES[None], auto: architecture}
    said = {key: config[key] for key in BLOCKS} | {"head": head}
    said["auto_map"] = {key: f"{SOURCE.stem}.{name}" for key, name in classes.items()}
    if modality == "speech" and head:
        letters = [*BLANK, *config["symbols"][len(BLANK) :]]
        said["id2label"] = {str(number): letter for number, letter in enumerate(letters)}
        said["label2id"] = {letter: number for number, letter in enumerate(letters)}
    return said


def write_files(config: Mapping, head: str | None) -> dict[str, Mapping]:
    """Return the JSON files that say how a raw item becomes input, which are the same for all classes, by name."""
    return FORMATS[config["modality"]].write_files(config, head)


def symbols(theirs: Mapping, read: Callable[[str], Mapping]) -> list[str]:
    """Return the names of the classes or letters by number, the special ones by our names."""
    found = class_names(theirs)
    return ["<s>", "<pad>", *found[2:]] if theirs["modality"] == "speech" and found[:2] == BLANK else found


def names(config: Mapping) -> Names:
    """Return the table of names for an encoder of ``config``."""
    return NAMES


def before_reading(weights: dict[str, Tensor], theirs: Mapping) -> dict[str, Tensor]:
    """Return their weights as they are."""
    return weights


def after_writing(weights: dict[str, Tensor], head: str | None) -> dict[str, Tensor]:
    """Return our weights as they are."""
    return weights
