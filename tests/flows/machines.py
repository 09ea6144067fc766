"""Servers, workers and what runs below them, as processes of their own: to be watched, and killed at the wrong time."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager, suppress
from pathlib import Path

from prefect.deployments import run_deployment

from flows import children

ROOT = Path(__file__).parents[2]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def serving(environment, port):
    """Run a Prefect server for the block; yield its process once it answers."""
    command = ["prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    pages = {"PREFECT_UI_API_URL": f"http://127.0.0.1:{port}/api"}
    process = subprocess.Popen(command, env=environment | pages, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        answers(f"http://127.0.0.1:{port}/api/health", process)
        yield process
    finally:
        children.stop(process, 20)


def answers(url, process):
    """Wait until ``url`` answers; fail when ``process`` ends first."""

    def asked():
        with suppress(urllib.error.URLError, OSError):
            urllib.request.urlopen(url, timeout=5).close()
            return True

    assert until(lambda: asked() or process.poll() is not None, 600)
    assert process.poll() is None, "the Prefect server did not start"


def deploy(environment, api):
    """Set up the pools and the deployments of this project; return the environment that names the server."""
    environment = environment | {"PREFECT_API_URL": api, "PYTHONPATH": str(ROOT)}
    for command in (
        [sys.executable, "-m", "flows.setup_server", "cpu=2", "gpu=1"],
        ["prefect", "--no-prompt", "deploy", "--all"],
    ):
        subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, timeout=600)
    return environment


@contextmanager
def working(environment, folder, pool="gpu"):
    """Run a worker of ``pool`` for the block."""
    command = [sys.executable, "-m", "flows.worker", pool]
    settings = environment | {
        "D2V_ROOT": str(folder),
        "PREFECT_PLUGINS_ENABLED": "0",
        "PREFECT_WORKER_QUERY_SECONDS": "2",
    }
    with (folder.parent / "worker.log").open("a") as log:
        process = subprocess.Popen(
            command, env=settings, cwd=folder.parent, stdout=log, stderr=log, start_new_session=True
        )
    try:
        yield process
    finally:
        children.stop(process, 40)


def until(condition, seconds=180):
    """Return what ``condition`` returns as soon as that is true, or after ``seconds``."""
    deadline = time.monotonic() + seconds
    while not (result := condition()) and time.monotonic() < deadline:
        time.sleep(0.2)
    return result


def processes(folder, part=""):
    """Return the processes at work below ``folder`` whose command line has ``part``."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            here = str(folder) in os.readlink(entry / "cwd") and int(entry.name) != os.getpid()
            if here and command and part in command:
                found.append(int(entry.name))
    return found


def family(process):
    """Return ``process`` and its descendants."""
    parents = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    found = [process]
    for parent in found:
        found.extend(child for child, other in parents.items() if other == parent)
    return found


def vanish(process):
    """Kill ``process`` and all its descendants at once, as a machine does that loses its power."""
    doomed = family(process)
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for one in doomed:
            with suppress(ProcessLookupError):
                os.kill(one, number)


def begin(folder):
    """Start a run and return it once five updates are saved; it stays at its tenth until ``release``."""
    (folder / "state/checkpoints").mkdir(parents=True, exist_ok=True)
    (folder / "state/checkpoints/hold").touch()
    run = run_deployment("pretrain/pretrain-speech", timeout=0)
    assert until((folder / "state/checkpoints/update").exists), (folder.parent / "worker.log").read_text()
    return run


def release(folder):
    """Let the training go on."""
    (folder / "state/checkpoints/hold").unlink(missing_ok=True)


def trained(folder):
    """Return the updates that were trained, in order."""
    return [int(line) for line in (folder / "state/checkpoints/trained").read_text().split()]


def ended(client, run, seconds=180):
    """Return the final state of ``run``, or the one it is in after ``seconds``."""
    states = []

    def final():
        states.append(client.read_flow_run(run.id).state)
        return states[-1].is_final()

    until(final, seconds)
    return states[-1]


def check_afterwards(folder, done=False):
    """Assert that nothing is left, and that the next ``dvc repro`` trains what was not saved: nothing when ``done``."""
    assert until(lambda: not processes(folder), 60)
    release(folder)
    saved, before = folder / "state/checkpoints/update", trained(folder)
    first = int(saved.read_text()) if saved.exists() else 0
    command, settings = ["dvc", "repro", "pretrain@speech"], {"D2V_STATE": str(saved.parent)}
    result = subprocess.run(
        command, cwd=folder, env=os.environ | settings, capture_output=True, text=True, check=False, timeout=300
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert trained(folder)[len(before) :] == ([] if done else list(range(first, 30)))
