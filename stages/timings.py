"""Where the time went: the stages of the last ``make repro``, the longest first."""

import json

from stages import runner
from stages.runner import TIMINGS


def main() -> None:
    """Print the wall time of every stage that ran since the log was last removed."""
    if not TIMINGS.exists():
        print("Nothing had to be run: every stage is up to date.")
        return
    stages = [json.loads(line) for line in TIMINGS.read_text().splitlines()]
    total = sum(stage["seconds"] for stage in stages)
    print(f"\nWhere the time went ({total:.0f} s in {len(stages)} stages):")
    for stage in sorted(stages, key=lambda stage: -stage["seconds"]):
        print(f"{stage['seconds']:8.1f} s  {stage['stage']}")


if __name__ == "__main__":
    runner.run(main)
