"""What a person sees in the browser: every page and the content of every artifact, without another host than ours."""

import functools
import http.server
import shutil
import subprocess
import threading
from contextlib import contextmanager

import pytest
from browser import page

from flows.pretrain import pretrain
from flows.reproduce import reproduce
from tests.nightly import nightly

pytestmark = pytest.mark.skipif(not shutil.which("chromium"), reason="needs the program chromium")


def test_a_run_can_be_read_in_the_browser(prefect, deployed, server, tmp_path):
    state = reproduce(["pretrain@speech"], return_state=True)
    assert state.is_completed()
    run = prefect.read_flow_run(state.state_details.flow_run_id)
    assert run.name == "reproduce pretrain@speech"
    artifacts = {artifact.key: artifact for artifact in prefect.read_artifacts() if artifact.flow_run_id == run.id}
    form = next(one for one in prefect.read_deployments() if one.name == "pretrain-speech")
    address = server.removesuffix("/api")
    contents = {
        "stages": ["How the stages ended", "prepare@speech", "pretrain@speech", "It ran for"],
        "metrics": ["pretrain@speech", "loss", "1.5"],
        "loss-pretrain-speech": ["Loss of pretrain@speech over 2 records"],
        "prepare-speech": ["prepare@speech: 3 of 4", "9.0 rows/s ETA 0 s", "τ"],
    }
    pages = {f"artifacts/artifact/{artifacts[key].id}": texts for key, texts in contents.items()} | {
        f"runs/flow-run/{run.id}": [run.name, "Completed", "2 Task runs"],
        f"deployments/deployment/{form.id}/run": ["updates", "how many optimizer updates", "recipe", "seed"],
        "deployments": ["pretrain-speech", "pretrain-vision", "pretrain-text", "prepare-speech", "finetune"],
        "work-pools": ["cpu", "gpu"],
    }
    with page() as browser:
        for place, texts in pages.items():
            browser.read(f"{address}/{place}", *texts)
            if "Loss of" in texts[0]:
                shown = "[...document.images].some(i => i.src.startsWith('data:image/png') && i.naturalWidth == 600)"
                assert browser.until(shown)
            browser.screenshot(tmp_path / f"{place.replace('/', '-')}.png")
        assert browser.hosts <= {"127.0.0.1", None}


@contextmanager
def shown(folder):
    """Serve ``folder`` as ``make ui`` does for the block; yield the address."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as pages:
        threading.Thread(target=pages.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{pages.server_port}/"
        pages.shutdown()


@nightly("takes 10 seconds")
def test_the_version_and_the_report_of_runs_can_be_read_in_the_browser(prefect, server, workspace, monkeypatch):
    address = server.removesuffix("/api")

    def artifacts(state):
        assert state.is_completed(), state.message
        mine = [one for one in prefect.read_artifacts() if one.flow_run_id == state.state_details.flow_run_id]
        return {one.key: f"{address}/artifacts/artifact/{one.id}" for one in mine}

    with shown(workspace / "reports") as reports, page() as browser:
        monkeypatch.setenv("D2V_REPORTS_URL", reports)
        of_the_folder = artifacts(reproduce(return_state=True))
        browser.read(of_the_folder["report"], "The report of this run", f"Report: {reports}")
        assert browser.evaluate(f"[...document.links].some(link => link.href == '{reports}')")
        assert browser.read(reports, "speech", "vision") == "speech vision"

        of_a_branch = artifacts(pretrain("speech", updates=7, return_state=True))
        assert "report" not in of_a_branch
        texts = ["Stages: 1 UpToDate, 1 Completed", "dvc params diff HEAD runs/pretrain-speech-updates-7"]
        text = browser.read(of_a_branch["version"], *texts, "updates: 7}}  # a comment to keep")
        branch = subprocess.run(["git", "branch", "--list", "runs/*"], capture_output=True, text=True, check=True)
        assert f"Branch {branch.stdout.strip()}" in text
        assert browser.hosts <= {"127.0.0.1", None}
