"""Model cards: what a run is, what it was trained on and how well it does, with its limits.

The report shows them, and exported folders carry them in their README.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

from d2v_core.data.table import digest
from d2v_core.errors import UserError
from d2v_core.interop.huggingface_card import LICENSE, taken
from d2v_core.run import WEIGHTS
from stages.paths import TABLES
from stages.report.content import Content, Task
from stages.report.verdicts import Comparison, Side, health
from stages.report.wording import amount, grouped, score, words

LIMITS = (
    "What it was trained on is all it knows: other languages, speakers, scenes or subjects were not tested.",
    "Not examined for bias, nor for personal data in the corpus.",
)
CORRELATIONS = ("pearson", "spearman", "matthews")


@dataclass(frozen=True)
class Card:
    """A run: facts by name, its scores with what they are compared with, its limits, and Python that loads it."""

    run: str
    title: str
    facts: dict[str, str]
    scores: list[tuple[str, str, str]]
    compared: str
    limits: list[str]
    license: str
    usage: str


def read_card(run: Path, config: Mapping, content: Content) -> Card:
    """Return the card of a run whose config.json is ``config``; scores are those in ``content``."""
    name, task = config["modality"], config.get("task")
    origin, seed = config.get("origin"), config.get("seed")
    facts = {"Method": f"data2vec {config['version']}.0", "Modality": name}
    if task:
        facts["Task"] = f"{task}, fine-tuned from {'pretrained' if origin == 'pretrained' else 'random'} weights"
    facts |= {"Answer": answer(config)} if "head" in config else {}
    facts |= {"Input": taken(config), "Size": size(run, config)}
    facts |= trained_on(config, content)
    facts |= {"Updates": grouped(config["updates"])} if "updates" in config else {}
    facts |= {"Weights": f"of update {config['chosen_update']}, the best on valid"} if "chosen_update" in config else {}
    facts |= {"Seed": str(seed)} if seed is not None else {}
    facts |= {"Source": str(config["source"])} if "source" in config else {}
    tasks = [one for one in content.tasks if str(one.settings.get("pretrained")) == run.as_posix()]
    facts |= {f"Task {one.name}": one.conditions for one in tasks if one.conditions}
    scores = own_scores(task, origin, content) if task else downstream_scores(tasks)
    limits = [*LIMITS, *limits_of_scores(scores, task)]
    monitored = next((modality.last for modality in content.modalities if modality.name == name), None)
    if monitored and not task and (judged := health(monitored)).level != "good":
        limits.insert(0, judged.text)
    compared = "" if task else "without pretraining"
    return Card(run.as_posix(), title(config), facts, scores, compared, limits, LICENSE, usage(run, config))


def title(config: Mapping) -> str:
    """Return what the run is called."""
    return f"data2vec {config['version']}.0, {config['modality']}" + (
        f", {config['task']}" if config.get("task") else ""
    )


def answer(config: Mapping) -> str:
    """Return what a fine-tuned run says of an input."""
    count = len(config["symbols"])
    kinds = {
        "ctc": f"a transcript in {count} letters",
        "score": "a number, learnt by squared error",
        "tags": f"any number of {count} classes, each with a probability of its own",
    }
    return kinds.get(config["head"], f"one of {count} classes")


def size(run: Path, config: Mapping) -> str:
    """Return the sizes of the encoder in words, with its parameters where the weights are there."""
    from safetensors import safe_open

    trunk = config["model"]["trunk"]
    said = f"{trunk['depth']} blocks of width {trunk['width']} with {trunk['heads']} heads"
    if not (run / WEIGHTS).exists():
        return said
    with safe_open(run / WEIGHTS, framework="np") as file:
        shapes = [file.get_slice(name).get_shape() for name in file.keys() if name.startswith("encoder.")]  # noqa: SIM118
    return f"{said}: {sum(map(prod, shapes)):,} parameters"


def trained_on(config: Mapping, content: Content) -> dict[str, str]:
    """Return which table the run was trained on, and how much that is, if the table is still the same."""
    task = next((task for task in content.tasks if task.name == config.get("task")), None)
    name = str(task.settings.get("table")) if task else config["modality"]
    recorded = config.get("table_digest")
    if recorded:
        try:
            same = digest(TABLES / name) == recorded
        except UserError:
            same = False
        if not same:
            return {"Trained on": f"a table that is not here now (digest {recorded[:12]})"}
    counts = content.corpora.get(name)
    if not counts or not (recorded or task):
        return {"Trained on": "not recorded"}
    splits = {split: amount_of(one, counts["unit"]) for split, one in counts["splits"].items()}
    held_out = ", ".join(f"{split} {said}" for split, said in splits.items() if split != "train")
    labels = f"{task.conditions.rpartition(', ')[2]} of " if task and task.conditions else ""
    said = f"{labels}table {name}: {splits.get('train', 'nothing')}"
    return {"Trained on": said} | ({"Held out": held_out} if held_out else {})


def amount_of(split: Mapping, unit: str) -> str:
    """Return how much a split is in words."""
    said = amount(split["amount"], unit)
    return said if split["amount"] == split["rows"] else f"{said} in {grouped(split['rows'])} rows"


def own_scores(task: str, origin: str | None, content: Content) -> list[tuple[str, str, str]]:
    """Return the scores on the test split of the models of a task that started from ``origin``."""
    found = next((one for one in content.tasks if one.name == task), None)
    sides = [
        (one.metric, one.ours if origin == "pretrained" else one.baseline)
        for one in (found.tuned if found else [])
        if one.split == "test"
    ]
    return [(f"{task}, {words(metric)}", written(side), "") for metric, side in sides if side]


def downstream_scores(tasks: list[Task]) -> list[tuple[str, str, str]]:
    """Return the scores on test splits of ``tasks``, fine-tuned and frozen, with those without pretraining."""
    return [
        (f"{task.name}, {kind}: {words(one.metric)}", written(one.ours), written(one.baseline))
        for task in tasks
        for kind, one in first_scores(task)
    ]


def first_scores(task: Task) -> list[tuple[str, Comparison]]:
    """Return the first two fine-tuned metrics of a task and all probed ones on the test split."""
    tuned = [("fine-tuned", one) for one in task.tuned if one.split == "test"][:2]
    return tuned + [("frozen probe", one) for one in task.probed if one.split == "test"]


def written(side: Side | None) -> str:
    """Return a score with its spread over seeds and its interval."""
    if side is None or side.mean is None:
        return "–"
    spread = "" if side.deviation is None else f" ± {score(side.deviation)}"
    interval = "" if side.low is None or side.high is None else f" [{score(side.low)}, {score(side.high)}]"
    return f"{score(side.mean)}{spread}{interval} (n = {len(side.values)})"


def limits_of_scores(scores: list[tuple[str, str, str]], task: str | None) -> list[str]:
    """Return how far scores can be trusted."""
    if not scores:
        return ["It has not been scored on any task."]
    correlated = any(name.endswith(CORRELATIONS) for name, *_ in scores)
    percent = "in percent, correlations times 100," if correlated else "in percent"
    if task:
        return [f"Scores are {percent} on one test split: the mean of n seeds of fine-tuning, of which this is one."]
    return [f"Scores are {percent} on one test split; other seeds of pretraining may differ by more than these n do."]


def usage(run: Path, config: Mapping) -> str:
    """Return Python that loads the run."""
    if config.get("task"):
        return f"python -m stages.predict --run {run.as_posix()} FILES"
    load = f'encoder = d2v_core.load("{run.as_posix()}")'
    return f"import d2v_core\n\n{load}\nfeatures = encoder.embed(items)  # [T, D] each"


def markdown(card: Card) -> str:
    """Return what a README.md says of a run beside how it is loaded there: facts, scores and limits."""
    facts = "\n".join(f"| {name} | {plain(value)} |" for name, value in card.facts.items())
    compared = f" {card.compared} |" if card.compared else ""
    rows = "\n".join(
        f"| {plain(name)} | {ours} |" + (f" {other} |" if card.compared else "") for name, ours, other in card.scores
    )
    head = f"| test split, % | score |{compared}\n|---|---|{'---|' if compared else ''}\n"
    scores = f"## Scores\n\n{head}{rows}\n\nMean ± deviation over seeds, [95% interval over rows].\n\n" if rows else ""
    limits = "\n".join(f"- {limit}" for limit in card.limits)
    return f"## Facts\n\n| | |\n|---|---|\n{facts}\n\n{scores}## Limits\n\n{limits}\n"


def plain(text: str) -> str:
    """Return ``text`` for a cell of a table in Markdown."""
    return text.replace("|", "\\|").replace("\n", " ")
