"""Makes ``prefect deployment run pretrain-speech`` work as typed: a deployment's name is enough where it is unique.

Prefect's CLI takes FLOW/DEPLOYMENT alone. This module is the entry point ``prefect.plugins`` of the project, which
``[tool.prefect.plugins]`` in pyproject.toml enables for commands that are run in its folder. The hook is Prefect's own;
that it replaces a method of the client is not, which is why pyproject.toml holds Prefect below the next minor version.
It also finds the server that ``make ui`` started, when ``PREFECT_API_URL`` names no other.
"""

import os
import sys
from pathlib import Path

from prefect.plugins import register_hook

ADDRESS = Path("state/ui/address")  # flows/ui.py writes it


@register_hook
def setup_environment(*, ctx):
    """Teach the client of ``prefect deployment ...`` names without a flow; every other process stays as it is."""
    if Path(sys.argv[0]).name not in {"prefect", "prefect.exe"}:
        return None
    found = None
    if not os.environ.get("PREFECT_API_URL") and ADDRESS.is_file():
        from prefect.plugins import SetupResult

        found = SetupResult(env={"PREFECT_API_URL": ADDRESS.read_text().strip()})
    if "deployment" in sys.argv:
        accept_bare_names()
    return found


def accept_bare_names() -> None:
    """Have the client look a name without ``/`` up among all deployments."""
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterName

    full = PrefectClient.read_deployment_by_name

    async def read_deployment_by_name(self, name):
        if "/" in name:
            return await full(self, name)
        wanted = DeploymentFilter(name=DeploymentFilterName(any_=[name]))
        found = await self.read_deployments(deployment_filter=wanted)
        if len(found) > 1:
            raise SystemExit(f"There are {len(found)} deployments named {name!r}; use FLOW/{name}.")
        return await self.read_deployment(found[0].id) if found else await full(self, f"-/{name}")

    PrefectClient.read_deployment_by_name = read_deployment_by_name  # type: ignore[method-assign]
