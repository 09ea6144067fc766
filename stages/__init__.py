"""Files in, files out: one module per DVC stage. Each can be run as ``python -m stages.NAME``.

Numerical libraries get one thread, before they are imported: on small arrays several threads wait for each other more
than they work, and by far when other processes want the cores too. Training takes ``threads`` of params.yaml.
"""

import os
import time

STARTED = time.perf_counter()
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")
