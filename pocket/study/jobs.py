"""Jobs of a long run: commands that wait for one another, several at a time, each skipped once it has succeeded.

A second run in the same folder is refused, also while a job of a killed one is still at work.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from config import read_yaml
from data.records import write_text
from errors import UserError
from evals.store import key_of
from lock import locked
from progress import Progress


@dataclass(frozen=True)
class Job:
    """name: unique, also the name of its log. arguments: for python. needs: names of the jobs that come before."""

    name: str
    arguments: tuple[str, ...]
    needs: tuple[str, ...] = ()


def run_jobs(
    jobs: list[Job],
    folder: str | Path,
    workers: int,
    threads: int,
    title: str,
    substitute: Callable[[str], str] = lambda argument: argument,
) -> None:
    """Run what has not succeeded yet, `workers` at a time, each with `threads` threads.

    A job's mark is `folder/NAME.done`, which holds its seconds, its arguments and a hash of each config file among
    them; others under a known name are refused, because what they would write is there already. substitute: applied to
    the arguments just before a job starts. Raises UserError naming the log of the first job that fails.
    """
    folder, running = Path(folder), {}

    def run(job):
        log = folder / f"{job.name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        began, mark = time.monotonic(), _mark(job)
        environment = os.environ | {"OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}
        with log.open("a") as file:
            command = [sys.executable, *map(substitute, job.arguments)]
            status = subprocess.run(command, stdout=file, stderr=file, env=environment, pass_fds=[held]).returncode
        if status:
            lines = log.read_text(errors="replace").strip().splitlines()
            raise UserError(f"{job.name} failed (exit {status}): {lines[-1] if lines else 'no output'}; see {log}")
        write_text(folder / f"{job.name}.done", "\n".join([f"{time.monotonic() - began:.0f} s", *mark]) + "\n")

    with locked(folder) as held:  # the jobs inherit it: after a kill nothing starts beside what is still at work
        done = {job.name for job in jobs if _is_done(folder, job)}
        waiting = {job.name: job for job in jobs if job.name not in done}
        with ThreadPoolExecutor(workers) as pool, Progress(len(jobs), title, initial=len(done), unit="jobs") as bar:
            while waiting or running:
                # start what waits for nothing, as far as there are workers
                ready = [job for job in waiting.values() if done.issuperset(job.needs)]
                for job in ready[: workers - len(running)]:
                    running[pool.submit(run, waiting.pop(job.name))] = job.name
                assert running, f"jobs that wait for each other: {sorted(waiting)}"

                # until one of them ends; what it raised is raised here, once the pool has waited for the others
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    name = running.pop(future)
                    future.result()
                    done.add(name)
                    bar.update(1)


def _is_done(folder, job):
    """Tell whether a job has succeeded before. Raises UserError if another command did under its name."""
    mark = folder / f"{job.name}.done"
    if not mark.exists():
        return False
    known = mark.read_text().splitlines()[1:]
    wanted = _mark(job)
    if known != wanted:
        changed = [f"{a!r}, now {b!r}" for a, b in zip(known, wanted, strict=False) if a != b]
        raise UserError(
            f"{mark} was made by another command ({changed[0] if changed else 'more or fewer arguments'}); "
            f"set another output folder; or delete what it wrote and this file"
        )
    return True


def _mark(job):
    """List what decides what a job does: its arguments, and a hash of each config file among them."""
    files = [argument for argument in job.arguments if argument.endswith(".yaml")]
    return [*job.arguments, *(f"{file} {key_of(content=read_yaml(Path(file)))}" for file in files)]
