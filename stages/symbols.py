"""The symbols that the stage ``vocabulary`` learnt, for whoever reads tables: no more than JSON is needed for it."""

import json

from d2v_core.errors import UserError
from stages.paths import VOCABULARIES


def read_symbols(name: str) -> list[str]:
    """Return the symbols of modality ``name`` by number; raise UserError when its stage has not run."""
    path = VOCABULARIES / name / "vocabulary.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))["symbols"]
    except FileNotFoundError:
        raise UserError(f"{path} is missing; run the stage vocabulary@{name}.") from None
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}); run the stage vocabulary@{name} again.") from None
