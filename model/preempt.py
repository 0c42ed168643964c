"""Preemption: on SIGTERM a training step is finished and saved; anything else stops at once. Both exit with status 75.

Under torchrun the workers exit with 75, torchrun itself with 1. It passes SIGTERM on and kills what still runs after
30 seconds: give a large model longer with `torchrun --shutdown-timeout 300 …`.
"""

import os
import signal
import sys

import torch

from progress import say

PREEMPTED = 75
"""exit status of a run that was stopped from outside and will go on: EX_TEMPFAIL, "try again later" """


class Preemption:
    """From its making on, SIGTERM ends this process. Inside `with`, it only sets `asked`: the caller leaves, in order.

    Outside of it there is nothing to save (all files are written so that a kill does not hurt them), and rank 0 may be
    anywhere in a library: so the process goes without unwinding.
    """

    def __init__(self):
        self.asked, self.waits = False, False
        signal.signal(signal.SIGTERM, self._on_signal)

    def __enter__(self):
        self.waits = True
        return self

    def __exit__(self, *exc):
        self.waits = False
        if self.asked and exc[0] is None:
            self._on_signal()

    def _on_signal(self, *_):
        self.asked = True
        if not self.waits:
            if os.environ.get("RANK", "0") == "0":
                os.write(2, b"stopped by SIGTERM; run the same command again to go on\n")  # print may be mid-call
            os._exit(PREEMPTED)

    def leave(self, step):
        """End this process after `step` whole steps, which a checkpoint on disk holds."""
        say(f"stopped by SIGTERM after step {step}; checkpoint saved; run the same command again to go on")
        sys.exit(PREEMPTED)


def on_any_rank(flag, ranks):
    """Whether `flag` is true on one rank at least, the same answer on all."""
    return ranks.sum(torch.tensor(float(flag), device=ranks.device)).item() > 0
