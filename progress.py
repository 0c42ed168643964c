"""A progress bar on a terminal, plain lines elsewhere (log files, CI), nothing on ranks other than 0."""

import os
import sys
from contextlib import contextmanager

from tqdm import tqdm

from errors import one_line

LINE = "{desc}: {n_fmt}/{total_fmt} {unit}, {elapsed}, {remaining} left{postfix}"


def say(text: str) -> None:
    """Print one line for the person watching, on rank 0, above a bar if there is one."""
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
        tqdm.write(
            f"warning: no {what}: {type(error).__name__}: {one_line(error)}" + f" (on rank {rank})" * (rank > 0),
            file=sys.stderr,
        )


class Progress(tqdm):
    """with Progress(total, "sft") as bar: bar.update(1, loss=0.7)

    A bar on a terminal. Elsewhere a plain line as it begins, at most one every 15 seconds, and one as it ends.
    """

    def __init__(self, total: int, label: str, initial: int = 0, unit: str = "it"):
        terminal = {"dynamic_ncols": True, "file": sys.stderr}
        plain = {"bar_format": LINE, "file": _Lines(), "mininterval": 15.0, "miniters": 1}
        silent = int(os.environ.get("RANK", "0")) != 0
        looks = terminal if sys.stderr.isatty() else plain
        self.notes = {}
        super().__init__(total=total, desc=label, initial=initial, unit=unit, disable=silent, **looks)

    def update(self, n: int = 1, **notes: float) -> None:
        """Count n more; notes: what is shown behind, each until it has another value."""
        self.notes |= notes
        self.set_postfix(self.notes, refresh=False)
        super().update(n)


class _Lines:
    """Stands in for the terminal: every state of the bar is a line."""

    def write(self, text):
        if text.strip():
            print(text.strip(), file=sys.stderr, flush=True)

    def flush(self):
        sys.stderr.flush()
