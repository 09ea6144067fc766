"""Files in, files out: one module per DVC stage. Each can be run as ``python -m stages.NAME``.

Numerical libraries get one thread, before they are imported: on small arrays several threads wait for each other more
than they work, and by far when other processes want the cores too. Training takes ``threads`` of params.yaml.
"""

import os
import sys
import time
from types import TracebackType

STARTED, PARENT = time.perf_counter(), os.getppid()
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")


def explain(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Say in one line that a package is missing, most often because another Python than that of ``.venv`` runs.

    And that Ctrl-C ended a stage, which no person needs to be shown the place of.
    """
    if kind is KeyboardInterrupt:
        print("stopped by Ctrl-C; run it again.", file=sys.stderr)
        return
    package = (error.name or "").partition(".")[0] if isinstance(error, ImportError) else ""
    if package in ("", "d2v_core", "stages", "flows"):
        sys.__excepthook__(kind, error, trace)
        return
    print(f"error: {error}; activate the environment of make (. .venv/bin/activate), or install it.", file=sys.stderr)


sys.excepthook = explain
