"""The processes in which answers are compared symbolically (grading/symbolic.py), as many as there are cores.

WORKERS.compare("2\\\\sqrt{2}", "\\\\sqrt{8}", None) == (True, False, "")
"""

import atexit
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

SECONDS = 5.0  # processor time for one symbolic comparison
OUT_OF_MEMORY = 3  # exit status of grading/symbolic.py


class Undecided(Exception):
    """Two answers could not be compared. status: one of UNDECIDED; the text says why."""

    def __init__(self, status: str, why: str):
        super().__init__(why)
        self.status = status


class Workers:
    """Idle worker processes. A thread takes one, or starts one if fewer than `limit` run, and puts it back."""

    def __init__(self, limit: int):
        self.idle, self.lock, self.slots = [], threading.Lock(), threading.BoundedSemaphore(limit)

    def compare(self, gold: str, pred: str, tolerance: float | list[float] | None) -> tuple[bool, bool, str]:
        """Return (whether they are equal, whether a difference was found, what failed on the way as a line of text).
        Raises Undecided."""
        with self.slots:
            with self.lock:
                worker = self.idle.pop() if self.idle else None
            if worker is None or worker.poll() is not None:  # one that is idle may be killed for its memory
                worker = self._start()
            task = {"gold": gold, "pred": pred, "tolerance": tolerance, "seconds": SECONDS}
            try:
                worker.stdin.write(json.dumps(task) + "\n")
                worker.stdin.flush()
                line = worker.stdout.readline()
            except BrokenPipeError:  # it was ended after the look at it above
                line = ""
            except BaseException:  # Ctrl-C between question and reply: the next reply would answer the wrong question
                worker.kill()
                raise
            # the kernel ended it, at its timer or its memory limit, or somebody else did: none of these is a verdict
            if not line:
                ended = worker.wait()
                if -ended in (signal.SIGPROF, signal.SIGALRM):
                    raise Undecided("timeout", f"the comparison took more than {SECONDS:g} s")
                why = "ran out of memory" if ended == OUT_OF_MEMORY else f"ended with exit status {ended}"
                raise Undecided("error", f"the comparison {why}")
            with self.lock:
                self.idle.append(worker)
        reply = json.loads(line)
        failed = "; ".join(reply["failed"])
        if reply["equal"] is None:
            raise Undecided("error", f"the comparison failed: {failed}")
        return reply["equal"], reply["differs"], failed

    def _start(self):
        script = Path(__file__).with_name("symbolic.py")
        worker = subprocess.Popen(
            [sys.executable, "-I", str(script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )
        if not worker.stdout.readline():
            raise RuntimeError(f"{script} did not start (exit status {worker.wait()}); is math-verify installed?")
        return worker

    def close(self) -> None:
        for worker in self.idle:
            worker.stdin.close()


WORKERS = Workers(os.cpu_count() or 1)
atexit.register(WORKERS.close)
