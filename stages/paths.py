"""Where every stage puts its files, relative to the project's folder. ``dvc.yaml`` names the same places."""

from pathlib import Path

VOCABULARIES = Path("data/vocabulary")
TABLES = Path("data/tables")
MODELS = Path("models")
METRICS = Path("metrics")
PLOTS = Path("plots")
REPORT = Path("reports/index.html")
STATE = Path("state")  # resume state and timings: belongs to no stage's outputs
