"""``make ui``: server, pools, deployments and workers of this folder on one machine, by one command, until Ctrl-C.

Nothing outside of the project's folder is written, and the browser needs no other host than this one. The server
listens on the loopback address; on another one only where ``PREFECT_SERVER_API_AUTH_STRING`` keeps strangers out.
"""

import argparse
import base64
import errno
import ipaddress
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path

import yaml

from flows import children

STATE = Path("state/ui")
ADDRESS = STATE / "address"
SECONDS_TO_START, SECONDS_TO_STOP = 120, 30
SETTINGS = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_UI_V2_ENABLED": "false",  # it asks a host on the internet
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    "PREFECT_CLOUD_ENABLE_ORCHESTRATION_TELEMETRY": "false",
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "60",  # seconds; flows/setup_server.py waits for nine of them
    "PREFECT_PLUGINS_ENABLED": "0",  # workers need no short names
    "DO_NOT_TRACK": "1",
    "DVC_NO_ANALYTICS": "1",
}


def main() -> None:
    """Start everything, print the address, and stop everything on SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m flows.ui", description="Prefect's UI for this folder.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
    parser.add_argument("--port", type=int, default=4200, help="port of the server; the next one shows reports (4200)")
    parser.add_argument("--gpu", type=int, default=1, help="runs at once in the pool gpu: one per GPU (1)")
    parser.add_argument("--cpu", type=int, default=2, help="runs at once in the pool cpu (2)")
    arguments = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit(0))
    refuse(arguments.host, arguments.port)
    with ExitStack() as stack:
        processes = serve(stack, arguments)
        print(f"Prefect is at http://{arguments.host}:{arguments.port} and reports at {reports(arguments)}")
        print(
            "In another terminal: prefect deployment run pretrain-speech --watch · Ctrl-C here stops it all", flush=True
        )
        while all(process.poll() is None for process in processes):
            time.sleep(0.5)
        sys.exit("error: the server or a worker ended by itself; its last words are in state/ui/*.log.")


def refuse(host: str, port: int) -> None:
    """End with a sentence when ``host`` needs a password that is not set, or cannot be listened on at a port."""
    from stages import params

    try:
        params.load()
    except params.UserError as error:
        sys.exit(f"error: {error}")
    try:
        loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        sys.exit(f"error: {host!r} is not an address; give one as --host, such as 127.0.0.1 or 0.0.0.0.")
    if not loopback and not os.environ.get("PREFECT_SERVER_API_AUTH_STRING"):
        sys.exit(f"error: {host} is open to others; set PREFECT_SERVER_API_AUTH_STRING=user:password first.")
    for number in (port, port + 1):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, number))
            except (OSError, OverflowError) as error:
                if getattr(error, "errno", None) == errno.EADDRINUSE:
                    sys.exit(f"error: port {number} is taken; choose another one with --port.")
                sys.exit(f"error: {host} cannot be listened on at {number} ({error}); change --host or --port.")


def serve(stack: ExitStack, arguments: argparse.Namespace) -> list[subprocess.Popen]:
    """Start and return server, page of reports and workers; they end with ``stack``, workers and their runs first."""
    STATE.mkdir(parents=True, exist_ok=True)
    settings = os.environ | SETTINGS | {"D2V_REPORTS_URL": reports(arguments), "D2V_ROOT": str(Path.cwd())}
    settings.setdefault("PREFECT_HOME", str(Path("state/prefect").resolve()))
    settings["PREFECT_API_URL"] = api = f"http://{arguments.host}:{arguments.port}/api"
    if password := settings.get("PREFECT_SERVER_API_AUTH_STRING"):
        settings["PREFECT_API_AUTH_STRING"] = password
    start = partial(started, environment=settings)
    here = ["--host", arguments.host, "--port", str(arguments.port)]
    processes = [stack.enter_context(start("server", ["prefect", "server", "start", *here]))]
    wait_for(f"{api}/health", processes[0], password)
    Path("reports").mkdir(exist_ok=True)
    page = [sys.executable, "-m", "http.server", str(arguments.port + 1), "--bind", arguments.host, "-d", "reports"]
    processes.append(stack.enter_context(start("reports", page)))
    places = [f"{pool}={getattr(arguments, pool)}" for pool in ("cpu", "gpu")]
    run([sys.executable, "-m", "flows.setup_server", *places], settings)
    run(["prefect", "--no-prompt", "deploy", *deployments()], settings)
    for pool in ("cpu", "gpu"):
        worker = [sys.executable, "-m", "flows.worker", pool, "--name", f"{socket.gethostname()}-{pool}"]
        processes.append(stack.enter_context(start(f"worker-{pool}", worker)))
    ADDRESS.write_text(api + "\n")
    stack.callback(ADDRESS.unlink, missing_ok=True)
    return processes


def deployments() -> list[str]:
    """Return options that name the deployments of prefect.yaml, without those of modalities that params.yaml lacks."""
    from flows.choices import blocks

    known = {None, *blocks("modalities")}
    listed = yaml.safe_load(Path("prefect.yaml").read_text(encoding="utf-8"))["deployments"]
    names = [one["name"] for one in listed if one["parameters"].get("modality") in known]
    return [option for name in names for option in ("--name", name)]


def reports(arguments: argparse.Namespace) -> str:
    """Return where the folder of reports is shown."""
    return f"http://{arguments.host}:{arguments.port + 1}/"


@contextmanager
def started(name: str, command: list[str], environment: Mapping[str, str]) -> Iterator[subprocess.Popen]:
    """Run ``command`` while the block runs, in a group of its own, with its output in ``state/ui/NAME.log``."""
    with (STATE / f"{name}.log").open("w") as log:
        process = children.start(
            command, env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
        )
    try:
        yield process
    finally:
        children.stop(process, SECONDS_TO_STOP)


def run(command: list[str], environment: Mapping[str, str]) -> None:
    """Run ``command`` to its end; end with what it said when it fails."""
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if result.returncode:
        sys.exit(f"error: {' '.join(command)} failed:\n{result.stdout}{result.stderr}")


def wait_for(url: str, server: subprocess.Popen, password: str | None) -> None:
    """Wait until the server answers; end with a sentence when it does not."""
    request = urllib.request.Request(url)
    if password:
        request.add_header("Authorization", "Basic " + base64.b64encode(password.encode()).decode())
    deadline = time.monotonic() + SECONDS_TO_START
    while server.poll() is None and time.monotonic() < deadline:
        with suppress(OSError), urllib.request.urlopen(request, timeout=5):
            return
        time.sleep(0.2)
    sys.exit("error: the server did not start; its last words are in state/ui/server.log.")


if __name__ == "__main__":
    main()
