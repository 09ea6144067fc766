"""What a person sees in the browser: every page and the content of every artifact, without another host than ours."""

import shutil

import pytest
from browser import page

from flows.reproduce import reproduce

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
