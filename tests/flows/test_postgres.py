"""PostgreSQL behind the server, a real one on a free port: what docs/operations.md advises beyond one machine."""

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest
from machines import free_port, serving, until
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows import children
from tests.nightly import nightly

BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin"))  # where Debian puts them
pytestmark = [
    nightly("takes a minute"),
    pytest.mark.skipif(not BINARIES, reason="needs Debian's package postgresql"),
]


@contextmanager
def database():
    """Run a fresh PostgreSQL for the block; yield its address. It refuses to run as root."""
    root = os.geteuid() == 0
    person = {"user": "postgres", "group": "postgres"} if root else {}
    if root and "postgres" not in {entry.pw_name for entry in pwd.getpwall()}:
        pytest.skip("needs a user postgres")
    folder, port = Path(tempfile.mkdtemp(prefix="postgres-")), free_port()
    if root:
        shutil.chown(folder, **person)
    quiet = {"cwd": folder, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL} | person
    command = [BINARIES[-1] / "initdb", "--auth", "trust", "--username", "prefect", folder / "data"]
    subprocess.run(command, check=True, timeout=120, **quiet)
    settings = ["-p", str(port), "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="]
    process = subprocess.Popen([BINARIES[-1] / "postgres", "-D", folder / "data", *settings], **quiet)
    try:
        ready = [BINARIES[-1] / "pg_isready", "-h", "127.0.0.1", "-p", str(port)]
        assert until(lambda: not subprocess.run(ready, check=False, **quiet).returncode)
        yield f"postgresql+asyncpg://prefect@127.0.0.1:{port}/postgres"
    finally:
        children.stop(process, 20)
        shutil.rmtree(folder, ignore_errors=True)


def test_three_flows_at_once(workspace, environment, tmp_path):
    port, home, folders = free_port(), tmp_path / "prefect", [workspace]
    for number in (1, 2):
        folders.append(shutil.copytree(workspace, tmp_path / f"workspace-{number}", symlinks=True))
    api = f"http://127.0.0.1:{port}/api"
    with database() as address:
        own = environment | {"PREFECT_HOME": str(home), "PREFECT_SERVER_DATABASE_CONNECTION_URL": address}
        with serving(own, port):
            command = [sys.executable, "-m", "flows.reproduce"]
            running = [
                subprocess.Popen(
                    command, cwd=one, env=own | {"PREFECT_API_URL": api}, stderr=subprocess.PIPE, text=True
                )
                for one in folders
            ]
            said = [process.communicate(timeout=500)[1] for process in running]
            assert [process.returncode for process in running] == [0, 0, 0], "\n".join(said)
            with temporary_settings({PREFECT_API_URL: api}), get_client(sync_client=True) as client:
                runs = client.read_flow_runs()
                tasks = client.read_task_runs()
    assert [run.state.message for run in runs] == ["Stages: 5 Completed"] * 3
    starts, ends = [run.start_time for run in runs], [run.end_time for run in runs]
    assert max(starts) < min(ends)  # side by side
    assert len(tasks) == 15
    assert not list(home.glob("*.db"))
