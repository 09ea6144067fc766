"""Folders of Hugging Face's Data2Vec classes: read as a run, and written from a run, without their library.

What differs between the modalities is in ``huggingface_<modality>.py``, one file each with the same names: the
tables of weights, what is fixed on either side, and the configuration and files in both directions. The library has
classes for data2vec 1.0 alone; what they cannot express gets a class of its own (``huggingface_v2.py``).
"""

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from types import ModuleType

import safetensors.torch
import torch
from torch import Tensor

from d2v_core.config import require
from d2v_core.data.files import publish_folder
from d2v_core.errors import UserError
from d2v_core.interop import huggingface_v2, pickles
from d2v_core.interop.huggingface_card import write_card
from d2v_core.interop.huggingface_v2 import FORMATS
from d2v_core.interop.names import fits, their_names, to_ours, to_theirs
from d2v_core.model.supervised import head_layers
from d2v_core.setup import Setup, make_setup

CONFIG, CARD = "config.json", "README.md"
WEIGHTS, PICKLED, INDEX = "model.safetensors", "pytorch_model.bin", ".index.json"
REGRESSION = "regression"  # what they call a head that answers with a number
OUTSIDE = ("classifier.", "lm_head.", "head.")  # weights beside the encoder, whose names have no prefix


def read_folder(folder: Path) -> tuple[dict, dict[str, Tensor]]:
    """Return the configuration and the weights of a run from a Hugging Face folder.

    The configuration is a setup's, with ``source``, the class the folder was saved from, and for fine-tuned models
    ``head``, its kind, and ``symbols``, the names of its classes or letters. Weights are float32 by our names. Raises
    UserError for a folder that is incomplete or holds what we do not have.
    """
    folder = Path(folder)
    name, form, theirs = read_their_config(folder / CONFIG)
    weights = {key.removeprefix(form.PREFIX): tensor for key, tensor in read_weights(folder).items()}
    weights = form.before_reading(weights, theirs)
    head = head_in(weights, theirs, form, FORMATS[name].HEADS)
    try:
        block = form.read_block(theirs, lambda file: read_json(folder / file))
        symbols = None if head is None else form.symbols(theirs, lambda file: read_json(folder / file))
    except ValueError as error:
        raise UserError(f"{folder} cannot be read: {error}.") from None
    setup = make_setup(name, {"version": 1, **block}, str(folder / CONFIG))
    source = (theirs.get("architectures") or [form.ARCHITECTURES[head]])[0]
    config = {**setup.describe(), "source": f"Hugging Face {source}"}
    if head is not None:
        config |= {"head": head, "symbols": symbols}
    return config, our_weights(form, setup, config, weights, str(folder))


def read_their_config(path: Path) -> tuple[str, ModuleType, dict]:
    """Return the modality, its format and the values of ``config.json``; raise UserError for what we do not have."""
    said = read_json(path)
    kind, modality = str(said.get("model_type")), str(said.get("modality"))
    forms = {form.TYPE: (name, form) for name, form in FORMATS.items()}
    if modality in FORMATS:
        forms[huggingface_v2.TYPE] = (modality, huggingface_v2)
    if kind not in forms:
        kinds = ", ".join(form.TYPE for form in (*FORMATS.values(), huggingface_v2))
        raise UserError(f"{path} is missing or describes none of {kinds}; give the folder of such a model.")
    name, form = forms[kind]
    theirs = {**form.DEFAULTS, **said}
    for key, value in form.FIXED.items():
        if theirs[key] != value:
            raise UserError(f"{path} has {key} {theirs[key]!r}; only {value!r} can be read.")
    known = {*form.ARCHITECTURES.values(), *form.READ_TOO}
    for architecture in theirs.get("architectures") or ():
        if architecture not in known:
            raise UserError(f"{path} describes a {architecture}; only {', '.join(sorted(known))} can be read.")
    return name, form, theirs


def read_json(path: Path) -> dict:
    """Return the mapping in a JSON file, empty when there is no such file; raise UserError for anything else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}); fetch it again.") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold one JSON object; fetch it again.")
    return content


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Return all tensors of a folder by their names, from one file or several with an index; raise UserError."""
    for name in (WEIGHTS, PICKLED):
        if (folder / name).is_file():
            return read_tensors(folder / name)
        parts = set(read_json(folder / (name + INDEX)).get("weight_map", {}).values())
        if parts:
            if any(Path(part).name != part for part in parts):
                raise UserError(f"{folder / name}{INDEX} names files outside its folder; fetch it again.")
            return {key: tensor for part in sorted(parts) for key, tensor in read_tensors(folder / part).items()}
    raise UserError(f"{folder} has no {WEIGHTS} and no {PICKLED}; fetch its weights too.")


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of one file, on the CPU, without executing anything in it."""
    if path.suffix != ".safetensors":
        return pickles.read_tensors(path)
    try:
        return safetensors.torch.load_file(path)
    except (FileNotFoundError, safetensors.SafetensorError) as error:
        raise UserError(f"{path} cannot be read ({error}); fetch it again.") from None


def head_in(weights: Mapping[str, Tensor], theirs: Mapping, form: ModuleType, kinds: Collection[str]) -> str | None:
    """Return which of the ``kinds`` of fine-tuned heads is in ``weights``."""
    if set(theirs.get("architectures") or ()) & set(form.READ_TOO):
        return None
    layers = {key.rpartition(".")[0] for key in weights}
    number = theirs.get("problem_type") == REGRESSION
    kinds = [kind for kind in kinds if (kind == "score") == number]
    return next((kind for kind in kinds if {to[:-2] for to in form.HEADS[kind].values()} <= layers), None)


def our_weights(
    form: ModuleType, setup: Setup, config: Mapping, weights: dict[str, Tensor], where: str
) -> dict[str, Tensor]:
    """Return the weights of encoder and head by our names; raise UserError when some are missing or left over."""
    head = config.get("head")
    wanted, names = empty_weights(setup, config, head), all_names(form, config, head)
    used = {source for name in wanted for source in their_names(name, names)[0]}
    left = sorted(key for key in weights if key not in used and not key.startswith(form.IGNORED))
    if left:
        raise UserError(f"{where} holds weights that have no place here, such as {left[0]!r}.")
    return to_ours(weights, wanted, names, where)


def empty_weights(setup: Setup, config: Mapping, head: str | None) -> dict[str, Tensor]:
    """Return names and shapes of the weights of encoder and head, without memory for them."""
    with torch.device("meta"):
        weights = {f"encoder.{name}": tensor for name, tensor in setup.encoder().state_dict().items()}
        if head is not None:
            layers = head_layers(head, setup.trunk.width, len(config["symbols"]))
            weights |= {f"head.{name}": tensor for name, tensor in layers.state_dict().items()}
    return weights


def all_names(form: ModuleType, config: Mapping, head: str | None) -> dict[str, str]:
    """Return the table of names for encoder and head."""
    return {f"encoder.{ours}": theirs for ours, theirs in form.names(config).items()} | form.HEADS.get(head, {})


def write_folder(
    folder: Path, config: Mapping, weights: Mapping[str, Tensor], tokenizer: str | None = None, about: str = ""
) -> str:
    """Publish a run as a folder that Hugging Face's classes and pipelines load, and return the name of the class.

    ``config`` and ``weights`` are a run's; the prediction head and the teacher of pretraining stay behind.
    ``tokenizer`` is the content of tokenizer.json, for modalities that need one; ``about`` goes into the card. What
    the library's own classes cannot express is written with a class of its own; raises UserError for what none of
    them can.
    """
    setup = make_setup(config["modality"], config, "the run's config.json")
    if setup.name not in FORMATS:
        raise UserError(f"Hugging Face has no class for {setup.name}; it has them for {', '.join(FORMATS)}.")
    head = head_kind(FORMATS[setup.name], config, weights)
    form = form_for(config, head)
    files = their_files(form, config, head)
    tensors = their_weights(form, setup, config, head, weights)
    count = sum(tensor.numel() for tensor in tensors.values())
    texts = {name: json.dumps(content, indent=2, ensure_ascii=False) + "\n" for name, content in files.items()}
    texts[CARD] = write_card(config, head, form.ARCHITECTURES[head], count, form is huggingface_v2, about)
    if tokenizer is not None:
        texts["tokenizer.json"] = tokenizer
    if form is huggingface_v2:
        texts[form.MODULE] = form.SOURCE.read_text(encoding="utf-8")
    with publish_folder(folder) as temporary:
        for name, text in texts.items():
            (temporary / name).write_text(text, encoding="utf-8")
        safetensors.torch.save_file(tensors, temporary / WEIGHTS, metadata={"format": "pt"})
    return form.ARCHITECTURES[head]


def their_files(form: ModuleType, config: Mapping, head: str | None) -> dict[str, Mapping]:
    """Return the content of their JSON files by name; raise UserError for what no class of theirs can have."""
    try:
        said, files = form.write_config(config, head), form.write_files(config, head)
    except ValueError as error:
        raise UserError(f"the run cannot be written for Hugging Face: {error}.") from None
    said |= {"model_type": form.TYPE, "architectures": [form.ARCHITECTURES[head]], "dtype": "float32"}
    if head in form.CLASSIFIES:
        numbers = {symbol: number for number, symbol in enumerate(config["symbols"])}
        said |= {"problem_type": REGRESSION if head == "score" else "single_label_classification", "label2id": numbers}
        said["id2label"] = {str(number): symbol for symbol, number in numbers.items()}
    return {CONFIG: said, **files}


def form_for(config: Mapping, head: str | None) -> ModuleType:
    """Return the format of the library's own class for a run with such a head, else that of ``huggingface_v2``."""
    form = FORMATS[config["modality"]]
    try:
        check_expressible(form, config, head)
    except ValueError:
        return huggingface_v2
    return form


def check_expressible(form: ModuleType, config: Mapping, head: str | None) -> None:
    """Raise ValueError for the first value of a run that the library's own class does another way."""
    for dotted, wanted in {"version": 1, **form.EXPRESSIBLE}.items():
        value = config
        for key in dotted.split("."):
            value = value[key]
        require(value == wanted, f"{dotted} is {value!r} in this run; Hugging Face's classes can only have {wanted!r}")
    form.write_config(config, head)


def head_kind(form: ModuleType, config: Mapping, weights: Mapping[str, Tensor]) -> str | None:
    """Return the kind of a run's head, None for pretraining, whose runs name no symbols; raise UserError.

    Runs of before ``config.json`` named it are told by their weights, in which a number looks like classes.
    """
    if "symbols" not in config:
        return None
    found = [name for name in weights if name.startswith("head.")]
    for kind, names in form.HEADS.items():
        if config.get("head", kind) == kind and fits(found, names) and "layer_weights" not in weights:
            return kind
    raise UserError(f"Hugging Face has no {config['modality']} class with the head of this run; export it as .onnx.")


def their_weights(
    form: ModuleType, setup: Setup, config: Mapping, head: str | None, weights: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return a run's weights by their names, which in classes with a head have a prefix; raise UserError."""
    wanted = empty_weights(setup, config, head)
    for name, like in wanted.items():
        if name not in weights or weights[name].shape != like.shape:
            raise UserError(f"the run has no weight {name!r} of shape {list(like.shape)}; train it again.")
    names = all_names(form, config, head)
    theirs = form.after_writing(to_theirs({name: weights[name].float() for name in wanted}, names), head)
    prefix = "" if head is None else form.PREFIX
    return {key if key.startswith(OUTSIDE) else prefix + key: tensor for key, tensor in theirs.items()}
