"""``python -m stages.launch PROCESSES MODULE ARGUMENT...``: a stage on several processes of this machine, by torchrun.

What torchrun alone would end with, a traceback, is one sentence here, and a stopped training exits as one process does.
"""

import signal
import sys

from torch.distributed import run
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

from d2v_core.errors import Interrupted, Stopped
from stages import runner


def main(processes: str, module: str, *arguments: str) -> None:
    """Run ``module`` on ``processes`` processes.

    Raises Stopped after SIGTERM, and Interrupted when a process died; one that failed has said why.
    """
    try:
        run.main(["--standalone", f"--nproc-per-node={processes}", "-m", module, *arguments])
    except SignalException as came:
        raise Stopped(f"{module} was stopped by {signal.Signals(came.sigval).name}; run it again to go on.") from None
    except ChildFailedError as error:
        codes = {rank: failure.exitcode for rank, failure in error.failures.items()}
        own = {rank: code for rank, code in codes.items() if code != -signal.SIGTERM}  # that is torchrun's doing
        rank, code = min((own or codes).items(), key=lambda item: item[1])
        if code >= 0:
            sys.exit(code)
        killed = f"process {rank} of {processes} was ended by {signal.Signals(-code).name}"
        raise Interrupted(f"{killed}; run it again and it goes on from its last checkpoint.") from None
    sys.exit()  # without a time of its own: the first rank has written down the stage's


if __name__ == "__main__":
    runner.run(main)
