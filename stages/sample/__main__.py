"""The command: ``python -m stages.sample CORPUS`` writes one small corpus to data/raw/CORPUS."""

from d2v_core.errors import UserError
from stages import runner
from stages.sample import speech, text, vision

CORPORA = {"speech": speech.write, "vision": vision.write, "text": text.write, "topics": text.write_topics}


def main(corpus: str) -> None:
    """Write the corpus of that name; raise UserError, naming the ones there are, when there is none."""
    if corpus not in CORPORA:
        raise UserError(f"there is no sample corpus {corpus!r}; choose one of {', '.join(CORPORA)}.")
    CORPORA[corpus]()


if __name__ == "__main__":
    runner.run(main)
