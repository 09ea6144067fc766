"""docs/troubleshooting.md has a line for every message that a person can get, and none that nobody can."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/troubleshooting.md"
SAID = {
    "UserError",
    "PlanError",
    "Stopped",
    "StoppedError",
    "Interrupted",
    "SystemExit",
    "sys.exit",
    "said.append",
    "print",
}
SHORTEST = 8  # letters in a row of the constant part that tells one message from another
SOURCES = sorted(path for room in ("d2v_core", "stages", "flows") for path in (ROOT / room).rglob("*.py"))


def rendered(node: ast.AST) -> str:
    """Return the text of an expression with an ellipsis for everything that is not known before it runs."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(map(rendered, node.values))
    if isinstance(node, ast.BinOp):
        return rendered(node.left) + rendered(node.right)
    if isinstance(node, ast.IfExp):
        return rendered(node.body)
    return "…"


def plain(text: str) -> str:
    return re.sub(r"…(\W?…)*", "…", " ".join(text.replace("`", "").split()))


def calls(tree: ast.AST, names: set[str]) -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and node.args and (name := ast.unparse(node.func)) in names:
            to_a_person = name != "print" or any(each.arg == "file" for each in node.keywords)
            yield from [node] if to_a_person else []


def messages() -> dict[str, str]:
    """Return every message that names something constant, with where it is raised."""
    found = {}
    for path in SOURCES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assigned = [node for node in ast.walk(tree) if isinstance(node, ast.Assign)]
        for call in calls(tree, SAID):
            given = [call.args[0]]
            if isinstance(given[0], ast.Name):  # a message that is made before it is raised
                targets = {ast.unparse(node.targets[0]): node.value for node in assigned}
                given = [value for name, value in targets.items() if name == given[0].id]
            for node in given:
                text = plain(rendered(node))
                if max(map(len, text.split("…"))) >= SHORTEST:
                    found[text] = f"{path.relative_to(ROOT)}:{call.lineno}"
    return found


def rows(heading: str = "") -> list[str]:
    """Return the first cells of the tables on the page, or of those under a heading that begins so."""
    sections = re.split(r"^## ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    lines = [line for part in sections if part.startswith(heading) for line in part.splitlines()]
    cells = [line.split(" | ")[0].removeprefix("|") for line in lines if line.startswith("| ")]
    return [plain(cell) for cell in cells if plain(cell) not in ("message", "reason", "what you see")]


def fits(row: str, message: str) -> bool:
    place = 0
    for part in row.strip("…").split("…"):
        place = message.find(part, place) + len(part)
        if place < len(part):
            return False
    return True


MESSAGES, ROWS = messages(), [row for row in rows() if row not in rows("Why an item")]


def test_there_is_something_to_explain():
    assert len(MESSAGES) > 150


def test_every_message_has_a_line():
    missing = {where: text for text, where in MESSAGES.items() if not any(fits(row, text) for row in ROWS)}
    assert missing == {}, "add lines to docs/troubleshooting.md"


def test_every_line_has_a_message():
    first = rows("The first hour")
    assert [row for row in ROWS if row not in first and not any(fits(row, text) for text in MESSAGES)] == []


def test_lines_say_enough_to_be_found():
    assert [row for row in ROWS if max(map(len, row.split("…"))) < SHORTEST] == []


def test_every_reason_to_drop_an_item_has_a_line():
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in SOURCES]
    said = {rendered(call.args[0]) for tree in trees for call in calls(tree, {"Dropped"})}
    assert said - {"…"} <= set(rows("Why an item"))
