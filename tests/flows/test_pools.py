"""Set-ups for other machines, as far as they can be checked without those: syntax, schema, commands, secrets."""

import asyncio
import json
import re
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace
from uuid import uuid4

import jsonschema
import pytest
from prefect.client.schemas.objects import FlowRun
from prefect.utilities.templating import apply_values, find_placeholders

ROOT = Path(__file__).parents[2]
TEMPLATE = json.loads((ROOT / "deploy/kubernetes.json").read_text())
SLURM = ROOT / "deploy/slurm.sh"


def render(**values) -> dict:
    """Return the job that Prefect would make of the template and ``values``."""
    variables = TEMPLATE["variables"]
    jsonschema.Draft202012Validator.check_schema(variables)
    defaults = {name: field["default"] for name, field in variables["properties"].items() if "default" in field}
    values = defaults | values
    jsonschema.validate(values, variables)
    return apply_values(TEMPLATE["job_configuration"], values)["job_manifest"]


def test_the_kubernetes_template_renders_to_a_job():
    job = render(image="d2v:1", gpus=2)
    assert (job["apiVersion"], job["kind"]) == ("batch/v1", "Job")
    pod = job["spec"]["template"]["spec"]
    container = pod["containers"][0]
    assert container["image"] == "d2v:1"
    assert container["resources"]["limits"] == {"nvidia.com/gpu": 2}
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}
    assert not find_placeholders(job)
    with pytest.raises(jsonschema.ValidationError):
        render(image="d2v:1", gpus=-1)


def test_every_placeholder_has_a_variable():
    names = {placeholder.name for placeholder in find_placeholders(TEMPLATE["job_configuration"])}
    assert names == set(TEMPLATE["variables"]["properties"])


def test_the_pod_has_what_prefect_kubernetes_refuses_to_miss():
    pod = TEMPLATE["job_configuration"]["job_manifest"]["spec"]["template"]["spec"]
    assert (pod["parallelism"], pod["completions"], pod["containers"][0]["name"]) == (1, 1, "prefect-job")


def test_the_job_of_a_run_is_one_that_kubernetes_knows(prefect):
    """By the worker's own code and the API's own types, where the package prefect-kubernetes is installed."""
    worker = pytest.importorskip("prefect_kubernetes.worker")
    client = pytest.importorskip("kubernetes_asyncio.client")
    configure = worker.KubernetesWorkerJobConfiguration.from_template_and_values
    configuration = asyncio.run(configure(TEMPLATE, {"image": "d2v:1", "gpus": 2, "env": {"D2V_ROOT": "/elsewhere"}}))
    configuration.prepare_for_flow_run(FlowRun(flow_id=uuid4(), name="pretrain speech"))
    answer = SimpleNamespace(data=json.dumps(configuration.job_manifest))
    api = object.__new__(client.ApiClient)  # reads, and connects to nothing
    api.configuration = client.Configuration()
    job = api.deserialize(answer, "V1Job")
    container = job.spec.template.spec.containers[0]
    assert api.sanitize_for_serialization(job)["spec"]["template"]["spec"]["containers"][0]["image"] == "d2v:1"
    assert {"D2V_ROOT": "/elsewhere"}.items() <= {one.name: one.value for one in container.env}.items()
    assert container.args
    assert container.resources.limits == {"nvidia.com/gpu": "2"}


def test_the_server_takes_the_template_and_keeps_it(prefect, server, environment):
    settings = environment | {"PREFECT_API_URL": server}
    template = ["--type", "kubernetes", "--base-job-template", str(ROOT / "deploy/kubernetes.json")]
    create = ["prefect", "--no-prompt", "work-pool", "create", "cluster", *template]
    subprocess.run(create, env=settings, check=True, capture_output=True, timeout=60)
    pool = prefect.read_work_pool("cluster")
    assert (pool.type, pool.base_job_template) == ("kubernetes", TEMPLATE)


def test_the_slurm_script_is_valid_and_refuses_to_guess():
    subprocess.run(["bash", "-n", str(SLURM)], check=True, timeout=30)
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", str(SLURM)], check=True, timeout=30)
    result = subprocess.run(["bash", str(SLURM)], capture_output=True, text=True, check=False, timeout=30)
    assert result.returncode != 0
    assert "name a stage" in result.stderr


def test_the_slurm_script_quotes_its_stage(tmp_path):
    tools = tmp_path / ".venv/bin"
    tools.mkdir(parents=True)
    (tools / "dvc").write_text('#!/bin/sh\nprintf "%s|" "$@" > said\n')
    (tools / "dvc").chmod(0o755)
    subprocess.run(["bash", str(SLURM), "a; touch pwned $(touch pwned)"], cwd=tmp_path, check=True, timeout=30)
    assert (tmp_path / "said").read_text() == "--wait-for-lock|repro|a; touch pwned $(touch pwned)|"
    assert not (tmp_path / "pwned").exists()


def test_the_image_is_built_from_what_is_here_and_holds_no_secret():
    lines = (ROOT / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
    copied = [source for line in lines if line.startswith("COPY ") for source in line.split()[1:-1]]
    assert all((ROOT / source).exists() for source in copied)
    assert any("--constraint constraints.txt" in line for line in lines)
    assert re.match(r"USER \d+$", [line for line in lines if line.startswith("USER ")][-1])
    if shutil.which("hadolint"):
        subprocess.run(["hadolint", str(ROOT / "Dockerfile")], check=True, timeout=60)
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert {".dvc/config.local", ".env", "data", "models", "state"} <= set(ignored)
