"""``make ui``: a taken port (test_first_hour.py has more), and at night a whole life with a password."""

import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from tests.nightly import nightly

ROOT = Path(__file__).parents[2]


def test_a_taken_port_is_named():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        command = [sys.executable, "-m", "flows.ui", "--port", str(port)]
        result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert (result.returncode, result.stderr) == (1, f"error: port {port} is taken; choose another one with --port.\n")


def status(url: str, password: str = "", method: str = "POST") -> int:
    data = b"{}" if method == "POST" else None
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
    if password:
        import base64

        request.add_header("Authorization", "Basic " + base64.b64encode(password.encode()).decode())
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


@nightly("starts everything")
def test_everything_starts_behind_a_password_and_stops(workspace, environment):
    (workspace / "prefect.yaml").write_text((ROOT / "prefect.yaml").read_text())
    settings = environment | {"PREFECT_SERVER_API_AUTH_STRING": "ann:secret", "PREFECT_API_URL": ""}
    settings.pop("PREFECT_HOME")
    command = [sys.executable, "-m", "flows.ui", "--port", "4390"]
    process = subprocess.Popen(command, cwd=workspace, env=settings, stdout=subprocess.PIPE, text=True)
    try:
        assert "Prefect is at http://127.0.0.1:4390" in process.stdout.readline()
        api = "http://127.0.0.1:4390/api"
        assert status(f"{api}/deployments/filter") == 401
        assert status(f"{api}/deployments/filter", "ann:secret") == 200
        assert status(f"{api}/deployments/name/pretrain/pretrain-speech", "ann:secret", "GET") == 200
        assert status(f"{api}/deployments/name/pretrain/pretrain-text", "ann:secret", "GET") == 404  # no such modality
        assert (workspace / "state/ui/address").read_text() == f"{api}\n"
    finally:
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        process.wait(180)
    assert time.monotonic() - began < 180
    assert not (workspace / "state/ui/address").exists()
    for log in (workspace / "state/ui").glob("*.log"):
        assert "ann:secret" not in log.read_text()
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", 4390)) != 0
