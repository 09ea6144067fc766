"""``python -m stages.predict --run RUN NAME...``: what a fine-tuned run says of files, folders or lines of text.

Inputs are read, cut and checked as the stage ``prepare`` does, and put into batches of similar length. Each has one
answer or one sentence about why there is none, in the order of the inputs, while later ones are still being read.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from torch import Tensor

from d2v_core.data.loader import prefetch
from d2v_core.data.order import epoch_batches
from d2v_core.data.table import Row
from d2v_core.errors import Dropped, UserError
from d2v_core.evaluation.beam import BeamConfig
from d2v_core.evaluation.fusion import FusionWeights
from d2v_core.predicting import Predictor
from stages import answers, runner
from stages.answers import Answer
from stages.export import check_vocabulary
from stages.inputs import STDIN, Input, find_inputs, printable
from stages.paths import VOCABULARIES
from stages.preparation import shards

BATCHES = {"seconds": 120.0, "images": 64.0, "tokens": 8192.0}  # of a modality's unit at once; 64 of any other
WINDOW = 8  # batches among which inputs of similar length are found
AHEAD = 64  # inputs read before they are needed
FORMATS = ("table", "jsonl")
LONGEST_TEXT = 60  # characters of a text in the table
Made = tuple[Input, Row | Dropped]


def main(*arguments: str) -> None:
    """Print the answers; ends with exit code 1 if any input had none."""
    options = parse(arguments)
    predictor = Predictor(Path(options.run), answers.choose_device(options.device))
    transcribe, task = search(options, predictor), reading(options, predictor)
    interactive = STDIN in options.inputs and sys.stdin.isatty()
    found = find_inputs(options.inputs, predictor.setup.config.table, options.pairs)
    made = prefetch(partial(make, task), found, 0 if interactive else AHEAD)
    amount = partial(predictor.setup.modality.amount, table=predictor.setup.config.table)
    budget = options.batch or BATCHES.get(predictor.setup.modality.unit, 64.0)
    bad = width = 0
    for window in windows(made, amount, 0 if interactive else WINDOW * budget):
        width = max(width, *(len(item.name) for item, _ in window))
        for item, outcome in predict(predictor.logits, window, amount, budget):
            if isinstance(outcome, Dropped):
                bad += 1
                print(sentence(item, outcome), file=sys.stderr, flush=True)
                continue
            answer = answers.read_answer(predictor, transcribe, outcome, options.top)
            line = as_json(item, answer) if options.format == "jsonl" else as_table(item, answer, width)
            print(line, flush=True)
    sys.exit(1 if bad else 0)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Return the options on the command line."""
    parser = argparse.ArgumentParser(prog="python -m stages.predict", description="Transcripts, labels or scores.")
    add = parser.add_argument
    add("inputs", nargs="+", metavar="NAME", help="files, folders, archives, URLs; a text file is a text per line; "
        "- is standard input: texts, or names of files")  # fmt: skip
    add("--run", required=True, help="a fine-tuned run, such as models/finetune/digits/pretrained/seed-0")
    add("--format", choices=FORMATS, default="table" if sys.stdout.isatty() else "jsonl", help="table on a terminal")
    add("--top", type=positive, default=0, metavar="K", help="the K best classes, with their probabilities")
    add("--batch", type=positive, default=0, help="seconds of audio, images or tokens that are predicted at once")
    add("--device", default="auto", help="cpu, cuda or cuda:N; default: the GPU where there is one")
    add("--vocabulary", type=Path, help="of text; default: data/vocabulary/text")
    add("--pairs", action="store_true", help="every line holds two texts with a tab between them")
    beams = parser.add_argument_group("beam search", "for transcripts; docs/decoding.md says how it is tuned")
    models = beams.add_mutually_exclusive_group()
    models.add_argument("--decoding", metavar="NAME", help="as decoding.NAME in params.yaml, with its tuned weights")
    models.add_argument("--language-model", type=Path, metavar="PATH", help="an ARPA file or models/language/NAME")
    add = beams.add_argument
    add("--unit", choices=("words", "letters"), default="words", help="of an ARPA file")
    add("--lm-weight", type=float, default=1.0, help="what log10 of the language's probability counts; default 1")
    add("--word-score", type=float, default=0.0, help="what every word adds; default 0")
    add("--beam", type=positive, default=BeamConfig.size, help=f"width of the search; default {BeamConfig.size}")
    return parser.parse_args(arguments)


def positive(text: str) -> int:
    """Return a positive whole number; raise ValueError for anything else."""
    if (number := int(text)) < 1:
        raise ValueError
    return number


def search(options: argparse.Namespace, predictor: Predictor) -> Callable[[Tensor], str]:
    """Return what makes transcripts of logits; raise UserError for a language model where nothing is transcribed."""
    if not options.decoding and not options.language_model:
        return answers.greedy(predictor)
    if predictor.kind != "ctc":
        raise UserError(f"{options.run} gives no transcripts; leave the language model out.")
    if options.decoding:
        return answers.tuned_search(predictor, options.decoding)
    weights = FusionWeights(options.lm_weight, options.word_score)
    return answers.beam_search(predictor, options.language_model, options.unit, weights, BeamConfig(options.beam))


def reading(options: argparse.Namespace, predictor: Predictor) -> shards.Task:
    """Return how inputs become rows, as the stage ``prepare`` says it; raise UserError for another vocabulary."""
    table, modality = predictor.setup.config.table, predictor.setup.name
    vocabulary = options.vocabulary or VOCABULARIES / modality
    if hasattr(table, "vocabulary"):
        check_vocabulary(vocabulary, table.vocabulary)
    return shards.Task(shards.Job(modality, table, vocabulary, store="", project="", work=""), "test", (), {})


def make(task: shards.Task, item: Input) -> Made:
    """Return an input with its row, or with the reason why it has none."""
    if isinstance(item.record, Dropped):
        return item, item.record
    outcome = next(shards.decode(replace(task, records=[item.record])))
    return item, outcome if isinstance(outcome, Dropped) else outcome[0]


def windows(made: Iterator[Made], amount: Callable[[Row], float], most: float) -> Iterator[list[Made]]:
    """Yield inputs in parts whose rows are just above ``most`` in the modality's unit; 0: one by one."""
    held, total = [], 0.0
    for item, row in made:
        held.append((item, row))
        total += 0 if isinstance(row, Dropped) else amount(row)
        if total > most or not most:
            yield held
            held, total = [], 0.0
    if held:
        yield held


def predict(
    logits_of: Callable[[Sequence[Row]], list[Tensor]],
    window: Sequence[Made],
    amount: Callable[[Row], float],
    budget: float,
) -> Iterator[tuple[Input, Tensor | Dropped]]:
    """Yield every input of a window with its logits, or with the reason why it has none."""
    rows = [row for _, row in window if not isinstance(row, Dropped)]
    lengths = np.array([amount(row) for row in rows])
    batches = epoch_batches(lengths, budget, seed=0, epoch=0) if rows else []
    logits = {
        n: values for batch in batches for n, values in zip(batch, logits_of([rows[n] for n in batch]), strict=True)
    }
    order = iter(range(len(rows)))
    for item, row in window:
        yield item, row if isinstance(row, Dropped) else logits[next(order)]


def sentence(item: Input, reason: Dropped) -> str:
    """Return one line about an input that has no answer."""
    detail = f" ({reason.detail})" if reason.detail else ""
    return " ".join(f"{item.name}: {reason.reason}{detail}.".split())


def as_json(item: Input, answer: Answer) -> str:
    """Return a line of JSON: path, for text its line and the text, and the answer."""
    where = {"path": printable(item.path)} | ({} if item.line is None else {"line": item.line})
    return json.dumps(where | texts(item) | answer, ensure_ascii=False)


def as_table(item: Input, answer: Answer, width: int) -> str:
    """Return a line for a person: the name of the input in ``width`` columns, and the answer."""
    text = " | ".join(texts(item).values())[:LONGEST_TEXT]
    return "  ".join([f"{item.name:{width}}", answers.in_words(answer), *([text] if text else [])])


def texts(item: Input) -> dict[str, str]:
    """Return the texts of an input, where it is one."""
    if isinstance(item.record, Dropped):
        return {}
    return {name: text for name in ("text", "pair") if (text := item.record[name]) is not None}


if __name__ == "__main__":
    runner.run(main, options=True)
