"""How fast is the beam search? CPU seconds per second of audio at several widths, greedy decoding beside it.

``python -m benchmarks.decoding [UTTERANCES [FRAMES]]``: prints × real time on one core for synthetic logits of 32
letters, 50 frames a second, that spell sentences of this repository's documents with noise; the language models are
trained on those documents.
"""

import re
import time
from collections.abc import Callable
from itertools import chain
from pathlib import Path

import numpy as np
import torch

from d2v_core.evaluation import ctc, kneser_ney
from d2v_core.evaluation.beam import BeamConfig, beam_search
from d2v_core.evaluation.fusion import Fusion, FusionWeights, LetterFusion, WordFusion
from stages import runner

LETTERS = ("<s>", "<pad>", "</s>", "<unk>", "|", *"ETAONIHSRDLUMWCFGYPBVK'XJQZ")
FRAMES_PER_SECOND = 50
SIZES = (50, 500)
PRUNED = {"threshold": 20.0, "token_threshold": 8.0}


def sentences() -> list[list[str]]:
    """Return the lines of the repository's documents as words in capitals."""
    lines = [line for path in sorted(Path("docs").glob("*.md")) for line in path.read_text("utf-8").splitlines()]
    found = [re.findall(r"[A-Z][A-Z']*", line.upper()) for line in lines]
    return [words for words in found if words]


def spoken(words: list[str], frames: int, noise: float, rng: np.random.Generator) -> np.ndarray:
    """Return logits [frames, 32] in which every letter is two frames long between blanks, with Gaussian noise."""
    numbers = ctc.encode(" ".join(words), LETTERS)[: frames // 4]
    numbers = numbers[: len(numbers) - numbers[::-1].index(LETTERS.index(ctc.WORD_END))]
    logits = rng.normal(0, noise, (frames, len(LETTERS)))
    peaks = np.zeros(frames, dtype=int)
    starts = np.linspace(0, frames - 3, len(numbers)).astype(int)
    peaks[starts] = peaks[starts + 1] = numbers
    logits[np.arange(frames), peaks] += 8.0
    return logits


def rate(decode: Callable[[np.ndarray], str], utterances: list[np.ndarray]) -> float:
    """Return CPU seconds of decoding per second of audio."""
    decode(utterances[0])
    began = time.process_time()
    for logits in utterances:
        decode(logits)
    return (time.process_time() - began) * FRAMES_PER_SECOND / sum(len(logits) for logits in utterances)


def main(utterances: int = 4, frames: int = 500) -> None:
    """Decode and print a table."""
    torch.set_num_threads(1)
    text, rng = sentences(), np.random.default_rng(0)
    drawn = rng.integers(0, len(text) - 20, utterances)
    heard = {
        noise: [spoken([*chain(*text[start : start + 20])], frames, noise, rng) for start in drawn]
        for noise in (1.5, 3.0)
    }
    words = kneser_ney.train(text, 4)
    letters = kneser_ney.train([[*"|".join(line), "|"] for line in text], 6)
    weights = FusionWeights(2.0, 0.5)
    fusions: dict[str, Fusion] = {
        "no language model": LetterFusion(LETTERS, FusionWeights()),
        "letters, order 6": LetterFusion(LETTERS, weights, letters),
        "words, order 4, lexicon": WordFusion(LETTERS, words.words[3:], weights, words),
    }
    print(f"{len(words.words)} words, {len(words.keys)} and {len(letters.keys)} n-grams")
    print("\n| search | noise | " + " | ".join(f"beam {s} | beam {s}, pruned" for s in SIZES) + " |")
    print("|---|---|" + "---|" * (2 * len(SIZES)))
    for noise, logits in heard.items():
        greedy = rate(lambda values: ctc.greedy(torch.from_numpy(values), LETTERS), logits)
        print(f"| greedy | {noise} | {greedy:.5f} | | | |")
        for name, fusion in fusions.items():
            configs = [BeamConfig(size, **limits) for size in SIZES for limits in ({}, PRUNED)]
            rates = [
                rate(lambda values: beam_search(values, LETTERS, fusion, config)[0].text, logits)  # noqa: B023
                for config in configs
            ]
            print(f"| {name} | {noise} | " + " | ".join(f"{value:.4f}" for value in rates) + " |", flush=True)


if __name__ == "__main__":
    runner.call(main)
