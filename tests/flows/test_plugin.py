"""``prefect deployment run NAME`` as people type it: short names, full names, and mistakes that are told apart."""

import subprocess
from pathlib import Path

import pytest
from prefect.client.schemas.filters import FlowRunFilter
from prefect.deployments import run_deployment
from prefect.exceptions import PrefectHTTPStatusError

ROOT = Path(__file__).parents[2]


def type_in(environment, *arguments):
    command = ["prefect", "--no-prompt", "deployment", "run", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=120)


def test_short_and_full_names_start_the_same_deployment(prefect, deployed):
    bare = {name: value for name, value in deployed.items() if name != "PYTHONPATH"}
    short = type_in(bare, "pretrain-speech", "-p", "updates=5")
    full = type_in(deployed | {"PREFECT_PLUGINS_ENABLED": "0"}, "pretrain/pretrain-speech")
    assert (short.returncode, full.returncode) == (0, 0), short.stderr + full.stderr
    runs = prefect.read_flow_runs(flow_run_filter=FlowRunFilter(state={"type": {"any_": ["SCHEDULED"]}}))
    parameters = [run.parameters for run in runs if run.parameters.get("modality") == "speech"]
    assert {"modality": "speech", "isolated": True, "updates": 5} in parameters
    for run in runs:
        prefect.delete_flow_run(run.id)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["pretrain-audio"], "not found"),
        (["pretrain-speech", "-p", "updates=0"], "updates"),
        (["pretrain-speech", "-p", "unknown=1"], "unknown"),
    ],
)
def test_mistakes_are_refused_before_anything_runs(deployed, arguments, reason):
    result = type_in(deployed, *arguments)
    assert result.returncode == 1
    assert reason in result.stdout + result.stderr


@pytest.mark.parametrize(
    ("name", "value"), [("modality", "audio"), ("recipe", "../../etc/passwd"), ("seed", "; touch /tmp/hostile")]
)
def test_the_server_refuses_values_that_a_flow_does_not_take(prefect, deployed, name, value):
    with pytest.raises(PrefectHTTPStatusError, match=name):
        run_deployment("pretrain/pretrain-speech", parameters={name: value}, timeout=0)
