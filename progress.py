"""A progress bar on a terminal, plain lines elsewhere (log files, CI), nothing on ranks other than 0."""

import os
import sys
import time
from contextlib import contextmanager

from tqdm import tqdm


def say(text):
    """One line for the person watching, on rank 0, above a bar if there is one."""
    if int(os.environ.get("RANK", "0")) == 0:
        tqdm.write(text, file=sys.stderr)


@contextmanager
def cosmetic(what: str):
    """Run a block that only shows a result which is already on disk: its error becomes one warning line on stderr.

    what: the thing that is missing then, for the line. Ctrl-C and the exit of the process are let through.
    """
    try:
        yield
    except Exception as error:
        rank = int(os.environ.get("RANK", "0"))
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        text = f"warning: no {what}: {reason}" + f" (on rank {rank})" * (rank > 0)
        tqdm.write(text, file=sys.stderr)


class Progress:
    """with Progress(total, "sft") as bar: bar.update(1, loss=0.7)

    On a terminal a tqdm bar. Elsewhere a plain line at most every `every` seconds, and one at the end.
    """

    def __init__(self, total, label, initial=0, unit="it", every=15.0):
        self.total, self.label, self.done, self.unit, self.every = total, label, initial, unit, every
        self.initial, self.start = initial, time.monotonic()
        self.last, self.notes = self.start, {}
        self.silent = int(os.environ.get("RANK", "0")) != 0
        self.bar = None
        if not self.silent and sys.stderr.isatty():
            self.bar = tqdm(total=total, desc=label, initial=initial, unit=unit, dynamic_ncols=True, file=sys.stderr)

    def update(self, n=1, **notes):
        self.done += n
        self.notes |= notes
        if self.bar is not None:
            self.bar.set_postfix(self.notes, refresh=False)
            self.bar.update(n)
        elif not self.silent and time.monotonic() - self.last >= self.every and self.done < self.total:
            self._line()

    def _line(self):
        self.last = time.monotonic()
        seconds = self.last - self.start
        rate = (self.done - self.initial) / max(seconds, 1e-9)
        left = ""
        if rate > 0 and self.done < self.total:
            left = f", {tqdm.format_interval((self.total - self.done) / rate)} left"
        notes = "".join(f", {k} {v:.4g}" if isinstance(v, float) else f", {k} {v}" for k, v in self.notes.items())
        print(
            f"{self.label}: {self.done}/{self.total} {self.unit}, {tqdm.format_interval(seconds)}{left}{notes}",
            file=sys.stderr,
            flush=True,
        )

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        if self.bar is not None:
            self.bar.close()
        elif not self.silent:
            self._line()
