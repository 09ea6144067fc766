"""WHEN and WHERE: Prefect runs the stages of dvc.yaml, which it knows by name and not from the inside."""

import os

# Set before prefect is imported; whoever wants otherwise sets them first.
for name, value in {
    "DO_NOT_TRACK": "1",
    "DVC_NO_ANALYTICS": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
}.items():
    os.environ.setdefault(name, value)
if not os.environ.get("PREFECT_API_URL"):
    os.environ.pop("PREFECT_API_URL", None)  # empty would mean a server without an address; unset means none is needed
