"""Set-ups for other machines, as far as they can be checked without those: syntax, schema, commands, secrets."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import jsonschema
import pytest
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
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert {".dvc/config.local", ".env", "data", "models", "state"} <= set(ignored)
