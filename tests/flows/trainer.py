"""A training that saves every fifth update and when SIGTERM asks it to stop, and goes on from there.

It stays at its tenth update while there is a file ``hold``, however slow the machine is that a test runs on.
"""

import ctypes
import os
import signal
import sys
import time
from pathlib import Path

ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # end with the process that started it
STATE = Path(os.environ.get("D2V_STATE", "state")) / "update"
STATE.parent.mkdir(parents=True, exist_ok=True)
asked = []
signal.signal(signal.SIGTERM, lambda *_: asked.append(1))
start = int(STATE.read_text()) if STATE.exists() else 0
updates, hold = 30, STATE.with_name("hold")
with (STATE.parent / "trained").open("a") as log:
    for update in range(start, updates):
        time.sleep(0.1)
        while update >= 10 and hold.exists() and not asked:
            time.sleep(0.1)
        print(update, file=log, flush=True)
        if (update + 1) % 5 == 0 or asked:
            STATE.with_suffix(".new").write_text(str(update + 1))
            os.replace(STATE.with_suffix(".new"), STATE)
        print(f"::progress pretrain-speech {update + 1}/{updates} 10.0 updates/s ETA 1 s loss=0.5", flush=True)
        if asked:
            sys.exit(143)
Path("speech.model").write_text("speech\n")
Path("speech.csv").write_text("update,loss\n1,2.5\n2,1.5\n")
Path("speech.json").write_text('{"loss": 0.5}')
STATE.unlink()
