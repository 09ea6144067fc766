"""Stage ``report``: everything in ``metrics`` and ``plots`` → ``reports/index.html``, the same bytes every time.

``python -m stages.report --compare A B …`` writes ``reports/compare.html`` instead: runs side by side.
"""

from d2v_core.errors import UserError
from stages import runner
from stages.paths import REPORT
from stages.report import page
from stages.report.compare import compare
from stages.report.content import read_content
from stages.report.evidence import read_evidence
from stages.report.speed import read_speed

COMPARISON, SPEED = REPORT.with_name("compare.html"), REPORT.with_name("speed.html")


def main(*arguments: str) -> None:
    """Write the report of whatever the other stages have left behind so far, or the comparison of some runs."""
    if arguments:
        if arguments[0] != "--compare":
            raise UserError(f"{arguments[0]} is not known; give nothing, or --compare and the names of runs.")
        page.write(COMPARISON, "compare.html.jinja", content=compare(arguments[1:]))
        return
    content = read_content()
    page.write(REPORT, "report.html.jinja", content=content, evidence=read_evidence(content))
    speed = read_speed()
    if speed.trainings or speed.stages:
        page.write(SPEED, "speed.html.jinja", speed=speed, content=content)


if __name__ == "__main__":
    runner.run(main)
