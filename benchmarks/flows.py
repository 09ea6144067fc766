"""What a flow costs and gains beside plain ``dvc repro``: ``python -m benchmarks.flows [ROUNDS]``.

The same small stages in a throw-away project, run by both in turn, with a Prefect server of their own: some that need
nothing of each other and only wait, which a flow runs side by side, and a chain that does nothing, which shows what
each stage costs. Prints medians and ratios.
"""

import os
import resource
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import chdir
from pathlib import Path
from statistics import median

from flows.ui import SETTINGS, STATE, started, wait_for
from stages import runner

STAGES, SECONDS, PLACES = 8, 10, 4
PIPELINE = """
stages:
  wide:
    foreach: [{numbers}]
    do:
      cmd: sleep {seconds} && echo ${{item}} > wide${{item}}
      outs: ["wide${{item}}"]
  chain:
    foreach: {{{links}}}
    do:
      cmd: cat ${{item}} > link${{key}}
      deps: ["${{item}}"]
      outs: ["link${{key}}"]
"""


def main(rounds: int = 3) -> None:
    """Time ``rounds`` rounds of everything and print what the medians say."""
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        settings = set_up(Path(folder))
        STATE.mkdir(parents=True)
        server = ["prefect", "server", "start", "--host", "127.0.0.1", "--port", settings["PORT"]]
        with started("server", server, settings) as process:
            wait_for(f"{settings['PREFECT_API_URL']}/health", process, None)
            show(measure(rounds, settings))


def set_up(folder: Path) -> dict[str, str]:
    """Make the project in ``folder``; return the environment for its commands."""
    numbers = range(STAGES)
    links = ", ".join(f"{number}: {f'link{number - 1}' if number else 'start'}" for number in numbers)
    text = PIPELINE.format(numbers=", ".join(map(str, numbers)), links=links, seconds=SECONDS)
    Path("dvc.yaml").write_text(text)
    Path("start").write_text("start\n")
    for command in (["git", "init", "-q"], ["dvc", "init", "-q"]):
        subprocess.run(command, check=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    own = {
        "PORT": port,
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_HOME": str(folder / "prefect"),
        "PYTHONPATH": str(Path(__file__).parents[1]),
    }
    return os.environ | SETTINGS | own


def measure(rounds: int, settings: dict[str, str]) -> dict[str, tuple[float, float]]:
    """Return the median seconds of each command: by the clock, and of a core."""
    flow = [sys.executable, "-m", "flows.reproduce", "--cpu", str(PLACES)]
    commands = {
        "dvc wide": ["dvc", "repro", "--force", "wide"],
        "flow wide": [*flow, "--force", "wide"],
        "dvc chain": ["dvc", "repro", "--force", "chain"],
        "flow chain": [*flow, "--force", "chain"],
        "dvc nothing": ["dvc", "repro", "chain"],
        "flow nothing": [*flow, "chain"],
    }
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            began, used = time.perf_counter(), processor()
            subprocess.run(command, env=settings, check=True, capture_output=True)
            times[name].append((time.perf_counter() - began, processor() - used))
    return {name: tuple(median(column) for column in zip(*rows, strict=True)) for name, rows in times.items()}


def processor() -> float:
    """Return the seconds that commands which have ended kept a core busy, the server's not among them."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def show(seconds: dict[str, tuple[float, float]]) -> None:
    """Print the times, and what they say about parallel stages and about one stage."""
    print(f"{'':13} {'wall':>7} {'core':>7}  seconds; load {os.getloadavg()[0]:.0f} on {os.cpu_count()} cores")
    for name, (wall, core) in seconds.items():
        print(f"{name:13} {wall:7.1f} {core:7.1f}")
    gain = seconds["dvc wide"][0] / seconds["flow wide"][0]
    print(f"{STAGES} stages of {SECONDS} s, {PLACES} at once: dvc repro / flow = {gain:.2f}")
    for who in ("dvc", "flow"):
        pairs = zip(seconds[f"{who} chain"], seconds[f"{who} nothing"], strict=True)
        per = [(some - none) / STAGES for some, none in pairs]
        print(f"one stage by {who}: {per[0]:.2f} s, {per[1]:.2f} s of a core")
    more = [flow - dvc for flow, dvc in zip(seconds["flow nothing"], seconds["dvc nothing"], strict=True)]
    print(f"nothing to do: the flow takes {more[0]:.1f} s more, {more[1]:.1f} s of a core")


if __name__ == "__main__":
    runner.call(main)
