"""Print the parity table: ``python -m tests.parity > docs/parity.md``."""

import sys

from tests.parity.comparison import not_compared, rows
from tests.parity.measure import measure
from tests.parity.models import CASES, GOLDEN
from tests.parity.table import page

if __name__ == "__main__":
    if not GOLDEN.is_dir():
        sys.exit(f"There is no folder {GOLDEN}; put the golden numbers beside this checkout.")
    ours = {name: measure(name) for name in CASES}
    found = [row for name, numbers in ours.items() for row in rows(name, numbers)]
    print(page(found, {name: not_compared(name, numbers) for name, numbers in ours.items()}), end="")
