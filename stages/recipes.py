"""``python -m stages.recipes [NAME ...]``: the published models as changes to params.yaml, listed or applied.

A recipe is a file of the folder ``recipes``: a comment that says where its numbers come from, and blocks to lay over
params.yaml by the rule of ``stages.params.merge``. Comments and order of params.yaml stay, so that ``git diff`` shows
what a recipe changes.
"""

import copy
import difflib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import ScalarNode
from ruamel.yaml.representer import RoundTripRepresenter

from d2v_core.data.files import publish
from d2v_core.errors import UserError
from stages import params, runner

FOLDER = Path("recipes")
MEASURED = "real/"  # the folder of recipes whose results are our own (docs/real.md)
LONGEST_LINE = 8  # keys of a block in one line, above which new ones break it up
FIELDS = ("Source", "Data", "Hardware", "Cost", "Published", "Not published", "Not applied")


class Writer(RoundTripRepresenter):
    """Writes null where ruamel.yaml would write nothing."""

    def represent_nothing(self, _: None) -> ScalarNode:
        """Return the node of None."""
        return self.represent_scalar("tag:yaml.org,2002:null", "null")


Writer.add_representer(type(None), Writer.represent_nothing)


@dataclass(frozen=True)
class Recipe:
    """A recipe's name, the sentence it begins with, its ``FIELDS``, and the blocks to lay over params.yaml."""

    name: str
    title: str
    fields: dict[str, str]
    changes: Mapping


def main(*names: str) -> None:
    """Lay the recipes ``names`` over params.yaml, in order, in place; without any, list all there are."""
    if not names:
        print("\n".join(line for name in known() for line in described(read(name))))
        return
    count = apply([read(name) for name in names], params.PATH)
    print(f"{params.PATH}: {count} values changed by {', '.join(names)}; `git diff {params.PATH}` shows them")


def known() -> list[str]:
    """Return the names of all recipes: their paths in the folder, without suffix."""
    return sorted(path.relative_to(FOLDER).with_suffix("").as_posix() for path in FOLDER.rglob("*.yaml"))


def described(recipe: Recipe) -> list[str]:
    """Return what a list shows of ``recipe``: its name and first sentence, and the published result."""
    return [f"{recipe.name}: {recipe.title}", f"    published: {recipe.fields['Published']}"]


def table() -> str:
    """Return the Markdown table of all published models that docs/recipes.md holds."""
    rows = [read(name) for name in known() if not name.startswith(MEASURED)]
    lines = [f"| `{r.name}` | {r.title} | {r.fields['Cost']} | {r.fields['Published']} |" for r in rows]
    return "\n".join(["| recipe | what it is | cost | published result |", "|---|---|---|---|", *lines])


def read(name: str) -> Recipe:
    """Return the recipe ``name``; raise UserError when there is none, or when its file is not a recipe."""
    path = FOLDER / f"{name}.yaml"
    names = known()
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.0)
        raise UserError(
            f"{path} is not there"
            + (f"; the nearest recipe is {near[0]!r}." if near else "; run from the project's folder.")
        )
    text = path.read_text(encoding="utf-8")
    title, fields = header(text)
    missing = [field for field in FIELDS if field not in fields]
    if missing:
        raise UserError(f"{path} has no line '# {missing[0]}:' in its comment; add it.")
    return Recipe(name, title, fields, params.mapping(parse(text, path), str(path)))


def header(text: str) -> tuple[str, dict[str, str]]:
    """Return the first sentence and the fields of the comment at the top of a recipe, each in one line."""
    comment = takewhile(lambda line: line.startswith("#"), text.splitlines())
    lines = [line.removeprefix("#").strip() for line in comment]
    found: dict[str, list[str]] = {"": []}
    field = ""
    for line in lines:
        start, _, rest = line.partition(": ")
        begins = bool(rest) and start in FIELDS
        field = start if begins else field
        found.setdefault(field, []).append(rest if begins else line)
    joined = {field: " ".join(parts) for field, parts in found.items()}
    return joined.pop(""), joined


def apply(recipes: list[Recipe], path: Path) -> int:
    """Lay ``recipes`` over the file at ``path``, in place; return how many values and blocks that changed."""
    wanted: Mapping = params.load(path)
    for recipe in recipes:
        wanted = params.merge(wanted, recipe.changes)
    document = parse(path.read_text(encoding="utf-8"), path)
    count = settle(document, wanted)
    if count:
        text = io.StringIO()
        editor().dump(document, text)
        with publish(path) as temporary:
            temporary.write_text(text.getvalue(), encoding="utf-8")
    return count


def settle(document: CommentedMap, wanted: Mapping) -> int:
    """Give ``document`` the values of ``wanted``, in place, and leave what is equal as it is written; count changes.

    A block that an alias shares is written out where it changes. New keys come before the last one, behind which the
    comment of the next block is kept. A long block in one line gets a line for each key, unless that would tear it from
    the comment below it.
    """
    count = 0
    for key, value in wanted.items():
        below = document.get(key)
        if key in document and alike(below, value):
            continue
        if isinstance(below, CommentedMap) and isinstance(value, Mapping) and not replaces(value, below):
            if below.anchor.value is not None:
                below = document[key] = copy.deepcopy(below)
                below.yaml_set_anchor(None)
            count += settle(below, value)
            if len(below) > LONGEST_LINE and lines_after(document, key) < 2:
                below.fa.set_block_style()
            continue
        count += 1
        if key in document:
            document[key] = copy.deepcopy(value)
        else:
            document.insert(max(len(document) - 1, 0), key, copy.deepcopy(value))
    return count


def lines_after(document: CommentedMap, key: str) -> int:
    """Return how many lines of comments and blanks are kept with ``key``, that of its own value included."""
    tokens = document.ca.items.get(key) or []
    return sum(token.value.count("\n") for token in tokens if hasattr(token, "value"))


def replaces(value: Mapping, below: Mapping) -> bool:
    """Whether ``value`` stands for a whole new block: it lacks keys of the one ``below``."""
    return not set(below) <= set(value)


def alike(one: object, other: object) -> bool:
    """Whether two values of YAML are equal, and not only as true equals 1."""
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def editor() -> YAML:
    """Return what reads and writes YAML with its comments, quotes and numbers as they are written."""
    yaml = YAML()
    yaml.Representer = Writer
    yaml.preserve_quotes, yaml.width = True, 4096
    yaml.indent(mapping=2, sequence=4, offset=2)
    return yaml


def parse(text: str, path: Path) -> CommentedMap:
    """Return the document in ``text``, the content of ``path``; raise UserError when it is not valid YAML."""
    try:
        return editor().load(text)
    except YAMLError as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None


if __name__ == "__main__":
    runner.run(main)
