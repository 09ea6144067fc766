"""The README.md of an exported folder: what the model is, how it is loaded and where it came from."""

from collections.abc import Mapping

TASKS = {"ctc": "automatic-speech-recognition", "mean": "image-classification", "class": "image-classification"}
TASKS |= dict.fromkeys(("first", "score"), "text-classification")
EXAMPLES = {"speech": "utterance.wav", "vision": "picture.png", "text": "a sentence"}
INPUTS = {  # the name of an input, and how it is made
    "speech": ("input_values", "[B, samples], of AutoFeatureExtractor"),
    "vision": ("pixel_values", "[B, channels, side, side], of AutoImageProcessor"),
    "text": ("input_ids", "[B, tokens], of AutoTokenizer"),
}
NEXT = "\n\n"
LICENSE = "License: to be named by whoever publishes these weights; the data they were trained on may restrict it."
ORIGINS = ("source", "task", "origin", "seed", "updates", "chosen_update", "table_digest")  # what a run says of itself


def write_card(
    config: Mapping, head: str | None, architecture: str, parameters: int, remote: bool, about: str = ""
) -> str:
    """Return the card of a run that is written as ``architecture`` with so many ``parameters``.

    ``remote`` folders bring the code of their class. ``about`` is Markdown on what the run was trained on and how
    well it does, from whoever knows that.
    """
    modality, trunk = config["modality"], config["model"]["trunk"]
    code = "Its class is not in the library but in `modeling_data2vec2.py` beside this file.\n" if remote else ""
    items = "\n".join(f"- {key}: `{config[key]}`" for key in ORIGINS if config.get(key) is not None)
    return f"""---
library_name: transformers
pipeline_tag: {TASKS.get(head or "", "feature-extraction")}
tags: [data2vec, {modality}]
---

# data2vec {config["version"]}.0, {modality}

`{architecture}`, {purpose(config, head)}: {parameters:,} parameters in {trunk["depth"]} blocks of
width {trunk["width"]} with {trunk["heads"]} heads, for {taken(config)}.
{code}The decoder and the teacher of pretraining are not here.

```python
{usage(config, head, remote)}
```

{about and about.rstrip() + NEXT}Where it came from:

{items or "- not recorded"}

{LICENSE}
"""


def purpose(config: Mapping, head: str | None) -> str:
    """Return what the model is for."""
    if head is None:
        return "pretrained to give features"
    if head == "score":
        return "fine-tuned to give a number"
    return f"fine-tuned to tell {len(config['symbols'])} {'letters' if head == 'ctc' else 'classes'}"


def taken(config: Mapping) -> str:
    """Return what an input of the model is."""
    table = config["table"]
    if "sample_rate" in table:
        return f"waveforms at {table['sample_rate']} Hz"
    if "vocabulary" in table:
        return f"at most {table['tokens']} pieces of text out of {table['vocabulary']}"
    return f"{'gray' if table['channels'] == 1 else 'RGB'} images of {table['size']} × {table['size']} pixels"


def usage(config: Mapping, head: str | None, remote: bool) -> str:
    """Return three lines of Python that load and apply the model.

    Pipelines turn every picture into RGB, so that models of gray ones are applied to pixel values.
    """
    modality, trust = config["modality"], ", trust_remote_code=True" if remote else ""
    if head and config["table"].get("channels") != 1:
        return (
            "from transformers import pipeline\n"
            f'model = pipeline("{TASKS[head]}", "path/to/this/folder"{trust})\n'
            f'print(model("{EXAMPLES[modality]}"))'
        )
    name, result = ("AutoModelForImageClassification", "logits") if head else ("AutoModel", "last_hidden_state")
    given, made = INPUTS[modality]
    return (
        f"from transformers import {name}\n"
        f'model = {name}.from_pretrained("path/to/this/folder"{trust})\n'
        f"print(model({given}={given}).{result})  # {given} {made}"
    )
