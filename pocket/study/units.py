"""Units of a long run: commands that wait for one another, several at a time, each skipped once it has succeeded.

A second run in the same folder is refused, also while a unit of a killed one is still at work.
"""

import os
import subprocess
import sys
import time
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from config import read_yaml
from data.records import write_text
from errors import UserError
from evals.store import key_of, lock
from progress import Progress


@dataclass(frozen=True)
class Unit:
    """name: unique, also the name of its log. words: arguments for python. needs: names of units that come before."""

    name: str
    words: tuple
    needs: tuple = ()


def run_units(units, folder, workers, threads, title, substitute=lambda word: word):
    """Run what has not succeeded yet, `workers` at a time. Raises UserError naming the log of the first that fails.

    A unit's mark is `folder/NAME.done`, which holds its seconds, its words and a hash of each config file among them;
    others under a known name are refused, because what they would write is there already. substitute: applied to the
    words just before a unit starts.
    """
    folder = Path(folder)
    held = lock(
        folder
    )  # the units inherit it: after a kill of this process nothing starts beside what it leaves behind
    try:
        _run_all(units, folder, workers, threads, title, substitute, held)
    finally:
        os.close(held)


def _run_all(units, folder, workers, threads, title, substitute, held):
    units = {unit.name: unit for unit in units}
    done = {name for name, unit in units.items() if _is_done(folder, unit)}
    waiting = {name: unit for name, unit in units.items() if name not in done}
    running = {}

    def run(unit):
        log = folder / f"{unit.name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        began, mark = time.monotonic(), _mark(unit)
        environment = os.environ | {"OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}
        with log.open("a") as file:
            words = [sys.executable, *map(substitute, unit.words)]
            status = subprocess.run(words, stdout=file, stderr=file, env=environment, pass_fds=[held]).returncode
        if status:
            lines = log.read_text(errors="replace").strip().splitlines()
            raise UserError(f"{unit.name} failed (exit {status}): {lines[-1] if lines else 'no output'}; see {log}")
        write_text(folder / f"{unit.name}.done", "\n".join([f"{time.monotonic() - began:.0f} s", *mark]) + "\n")

    with ThreadPoolExecutor(workers) as pool, Progress(len(units), title, initial=len(done), unit="units") as bar:
        while waiting or running:
            ready = [unit for unit in waiting.values() if done.issuperset(unit.needs)]
            for unit in ready[: workers - len(running)]:
                running[pool.submit(run, waiting.pop(unit.name))] = unit.name
            assert running, f"units that wait for each other: {sorted(waiting)}"
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                name = running.pop(future)
                future.result()  # raises what the unit raised; the pool then waits for the others
                done.add(name)
                bar.update(1)


def _is_done(folder, unit):
    mark = folder / f"{unit.name}.done"
    if not mark.exists():
        return False
    known = mark.read_text().splitlines()[1:]
    wanted = _mark(unit)
    if known != wanted:
        changed = [f"{a!r}, now {b!r}" for a, b in zip(known, wanted, strict=False) if a != b]
        raise UserError(
            f"{mark} was made by another command ({changed[0] if changed else 'more or fewer words'}); "
            f"set another output folder; or delete what it wrote and this file"
        )
    return True


def _mark(unit):
    files = [word for word in unit.words if word.endswith(".yaml")]
    return [*unit.words, *(f"{file} {key_of(content=read_yaml(Path(file)))}" for file in files)]
