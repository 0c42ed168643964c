"""Run Python programs that nobody has read against tests: one shut-in interpreter a test, hard limits, no trust.

    run_tests(program, {"inputs": ["1 2\\n"], "outputs": ["3\\n"]}).exact                            # stdin
    run_tests(program, {"fn_name": "add", "inputs": [[1, 2]], "outputs": [3]}).exact                 # a function

Model-written code forks, fills the memory, prints without end, reads what it can and compares equal to everything. So
every test starts a fresh interpreter (`-I`) in a cell (grading/cell.py): its own session, empty environment and folder,
and as much as the machine allows of namespaces, Landlock, a filter of system calls and a user of its own: it sees the
interpreter read-only and nothing else of the file system, no process and no network, and all of it is gone when its
time is up. `isolation()` says what is in force, found by trying. Expected outputs stay in this process, which compares
text and JSON alone. Linux.
"""

import contextlib
import functools
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

from errors import UserError
from grading.compare_output import as_text, same_text, same_value
from grading.prelude import with_imports

CELL = Path(__file__).with_name("cell.py").read_text()
MODES = {
    "root": "namespaces (mount, pid, net, ipc, uts), as a user without privileges",
    "user": "namespaces (user, mount, pid, net, ipc, uts)",
    "bubblewrap": "bubblewrap",
    "bare": "no namespaces, resource limits",
}
USERS = (1_900_000_000, 10**8), (61_200, 4000)  # first, how many: users that exist for one run each, and nowhere else
DIGITS = 50_000  # longest whole number that is printed or read, as in LiveCodeBench; Python's own limit is 4,300
# The interpreter (a virtual environment's is the one it was made from) and its packages, by paths without symbolic
# links, because links lead nowhere once most of the file system is out of sight.
PYTHON = os.path.realpath(sys._base_executable)
PACKAGES = [os.path.realpath(path) for path in site.getsitepackages() if os.path.isdir(path)]
# or numpy asks for a thread a core, and every thread's own heap for 64 MB of address space
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}

# Runs main.py, or calls one function of it as LeetCode does: it may be a method of a class Solution. `site` is left out
# (-S), because it takes longer than the interpreter's start; what programs want of it is given here. What a program
# prints while a function is called goes to stderr: the only thing on stdout is the result as JSON.
RUN = f"""
import _thread, builtins, resource, sys
builtins.exit = builtins.quit = sys.exit
_thread.stack_size(16 << 20)  # else each thread asks for as much address space as the main one, whose stack is large
set_limit = resource.setrlimit
def setrlimit(*words):
    try:
        set_limit(*words)
    except ValueError:
        pass  # more than it may have: it goes on with what it has
resource.setrlimit = setrlimit
sys.path += {PACKAGES!r}
function, sys.argv = sys.argv[1:], ["main.py"]
module = type(sys)("solution" if function else "__main__")
sys.modules[module.__name__] = module
if function:
    import json, os
    arguments, out = json.load(sys.stdin), os.dup(1)
    os.dup2(2, 1)
try:
    with open("main.py", "rb") as file:
        exec(compile(file.read(), "main.py", "exec"), vars(module))
except SystemExit:  # sys.exit(main()): what was printed counts, as in LiveCodeBench
    if function:
        raise
if function:
    holder = module.Solution() if hasattr(module, "Solution") else module
    result = getattr(holder, function[0], None) or getattr(module, function[0])
    def plain(value):
        if hasattr(value, "tolist"):
            return value.tolist()  # numpy's numbers and arrays
        if type(value).__name__ == "deque":
            return list(value)
        raise TypeError(f"the result holds a {{type(value).__name__}}")
    with open(out, "w") as file:
        json.dump(result(*arguments), file, default=plain)
"""


@dataclass(frozen=True)
class Limits:
    """Of one test. seconds: of processor time, at least (one more at most); on the clock six times as many, and two
    more: machines are crowded. Sizes in bytes."""

    seconds: float = 6.0
    memory: int = 1 << 30  # address space of one process
    output: int = 16 << 20  # of each file that is written, standard output included
    disk: int = 64 << 20  # all files together, where there is a namespace
    processes: int = 32  # threads count too


@dataclass(frozen=True)
class Outcome:
    """How a program ended. status: "ok", "error" (it failed or hit a limit) or "timeout"; "failed": it was not started,
    and detail says why. Else detail is its last words."""

    status: str
    stdout: str
    detail: str = ""


@dataclass(frozen=True)
class Verdict:
    """exact: every output is right, to the letter of lines without their surrounding blanks, numbers by value.
    tolerant: every output is right if floats may be off by 1e-6. status: "passed" if tolerant, else that of the first
    test that is not: "wrong", "error" or "timeout", which is number `test`. detail: the program's last words there."""

    status: str
    exact: bool
    tolerant: bool
    test: int | None = None
    detail: str = ""


def check_tests(tests, where="tests"):
    """Raises UserError unless `tests` is {"fn_name"?: str, "inputs": […], "outputs": […]} with at least one test.

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


def run_tests(program, tests, limits=Limits(), most=None, wrapped=False, mode=None):
    """Verdict of a program's text on its tests, in order, until one fails. Raises UserError for malformed tests.

    most: run only the first so many. wrapped: a function's expected value may stand alone in a list, as in APPS and
    TACO, where [3] stands for 3. mode: one of MODES; by default the best that works here.
    """
    check_tests(tests)
    program = with_imports(program)
    function, exact = tests.get("fn_name"), True
    cases = zip(tests["inputs"], tests["outputs"], strict=True)
    for number, (given, expected) in enumerate(itertools.islice(cases, most)):
        stdin = json.dumps(given) if function else as_text(given)
        outcome = execute(program, stdin, limits, function, mode)
        if outcome.status != "ok":
            return Verdict(outcome.status, False, False, number, outcome.detail)
        if function:
            right, close = same_value(outcome.stdout, expected, wrapped)
        else:
            right, close = same_text(outcome.stdout, as_text(expected))
        if not close:
            return Verdict("wrong", False, False, number, _printable(outcome.stdout[-200:]))
        exact = exact and right
    return Verdict("passed", exact, True)


def execute(program, stdin, limits=Limits(), function=None, mode=None):
    """Run a program's text once. function: call this one with the JSON arguments in `stdin`; stdout is its result.

    Raises UserError if it cannot be shut in, twice: that is the machine's fault, and says nothing about the program.
    """
    mode = mode or isolation_mode()
    with _SLOTS:
        for _ in range(2):
            outcome = _execute(mode, program, stdin, limits, function)
            if outcome.status != "failed":
                return outcome
    raise UserError(f"cannot run programs in mode {mode}, though it worked before: {outcome.detail}")


def isolation(mode=None):
    """What shuts programs in on this machine, in words: the best mode that works, and what a program can still do."""
    mode = mode or isolation_mode()
    can = [f"programs can {words}" for words, reached in zip(REACH, _reach(mode), strict=True) if reached]
    words = [MODES[mode], *(can or ["no file but the interpreter's, no process, no network"])]
    better = itertools.takewhile(lambda one: one != mode, MODES)
    return "; ".join([*words, *(f"not {one}: {why}" for one in better if (why := why_not(one)))])


def exposes_environment():
    """Whether a program could read this process's environment: as the same user, with its files in reach."""
    return os.geteuid() != 0 and isolation_mode() == "bare" and _reach("bare")[0]


def isolation_mode():
    """The first of MODES that works here."""
    for mode in MODES:
        if works(mode):
            return mode
    raise UserError("cannot run programs here. " + "; ".join(f"{mode}: {why_not(mode)}" for mode in MODES))


def works(mode):
    """Whether a small program runs in this one of MODES here."""
    return why_not(mode) is None


@functools.cache
def why_not(mode):
    """Why a small program does not run in this one of MODES here, in a line; None where it does."""
    if mode == "root" and os.geteuid() != 0:
        return "for root only"
    if mode == "bubblewrap" and not shutil.which("bwrap"):
        return "there is no bwrap on PATH"
    outcome = _execute(mode, "print(input())", "works", Limits(), None)
    return None if outcome.stdout == "works\n" else outcome.detail or f"it printed {outcome.stdout!r}"


REACH = ("read files of this machine", "start processes", "use the network")
TRY = """
import os, socket
def works(action):
    try:
        action()
    except OSError:
        return False
    return True
def connect():
    with socket.socket() as one:
        one.settimeout(1)
        one.connect(("127.0.0.1", {port}))
print(works(lambda: open({file!r})), works(lambda: os.fork() or os._exit(0)), works(connect))
"""


@functools.cache
def _reach(mode):
    """For each of REACH, whether a program that tries gets there."""
    with tempfile.TemporaryDirectory() as folder, socket.create_server(("127.0.0.1", 0)) as server:
        os.chmod(folder, 0o755)
        (file := Path(folder, "file")).touch(0o644)
        outcome = _execute(mode, TRY.format(file=str(file), port=server.getsockname()[1]), "", Limits(), None)
    if outcome.status != "ok":
        raise UserError(f"cannot tell what a program can reach in mode {mode}: {outcome.detail}")
    return [word == "True" for word in outcome.stdout.split()]


def _execute(mode, program, stdin, limits, function):
    uid = _user_of_one_run()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home, tempfile.TemporaryFile() as given, \
            tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:  # fmt: skip
        os.chmod(home, 0o755)
        (box := Path(home, "box")).mkdir()
        Path(home, "root").mkdir()
        (box / "main.py").write_text(program, encoding="utf-8", errors="replace")
        (box / "run.py").write_text(RUN)
        given.write(stdin.encode("utf-8", "replace"))
        given.seek(0)
        os.fchmod(given.fileno(), 0o444)  # /dev/stdin may be opened
        report = _start(mode, uid, home, ["run.py", function] if function else ["run.py"], limits, given, out, errors)
        out.seek(0)
        errors.seek(0, os.SEEK_END)
        errors.seek(max(0, errors.tell() - 2000))
        stdout, said = (file.read(limits.output).decode("utf-8", "replace") for file in (out, errors))
    words = _printable((said.strip().splitlines() or [""])[-1][:200])
    if report.startswith("failed"):
        return Outcome("failed", "", report.removeprefix("failed "))
    status, late, seconds = map(float, report.split())
    # the kernel counts RLIMIT_CPU in ticks, and on a crowded machine may kill some tenths of a second early
    if late or (status == -signal.SIGKILL and seconds > 0.75 * limits.seconds):
        return Outcome("timeout", stdout, f"after {seconds:.1f} s of processor time")
    if status != 0:
        return Outcome("error", stdout, words or f"exit status {status:.0f}")
    return Outcome("ok", stdout)


def _printable(text):
    """Without what a terminal would obey."""
    return "".join(char if char.isprintable() or char == "\n" else " " for char in text)


def _user_of_one_run():
    """For root: a user that nobody else is, of the first of USERS that this machine (or container) knows; or None."""
    lines = Path("/proc/self/uid_map").read_text().splitlines() if os.geteuid() == 0 else []
    mapped = [(int(first), int(first) + int(count)) for first, _, count in map(str.split, lines)]
    for first, count in USERS:
        if any(low <= first and first + count <= high for low, high in mapped):
            return first + next(_COUNTER) % count
    return None


def _start(mode, uid, home, words, limits, given, out, errors):
    """Start the cell and wait for its end. Returns its report, or `failed` and why."""
    read_end, write_end = os.pipe()
    wall = 6 * limits.seconds + 2
    cell = {
        "mode": "bare" if mode == "bubblewrap" else mode,
        "uid": None if mode == "bubblewrap" else uid,
        "home": "/" if mode == "bubblewrap" else home,
        "readable": _readable(),
        "disk": limits.disk,
        "folders": mode != "bare",
        "wall": wall,
        "limits": {
            "RLIMIT_STACK": limits.memory // 8,  # for deep recursion
            "RLIMIT_AS": limits.memory,
            "RLIMIT_CPU": math.ceil(limits.seconds) + 1,
            "RLIMIT_FSIZE": limits.output,
            "RLIMIT_NPROC": limits.processes,
            "RLIMIT_NOFILE": 64,
            "RLIMIT_CORE": 0,
        },
        "argv": [PYTHON, "-I", "-S", "-X", f"int_max_str_digits={DIGITS}", *words],
        "env": ENVIRONMENT,
        "report": write_end,
    }
    command = [PYTHON, "-I", "-S", "-c", CELL, marshal.dumps(cell).hex()]
    options = {}
    if mode == "bubblewrap":
        command = [*_bubblewrap(home, limits.disk), *command]
        options = {"user": uid, "group": uid, "extra_groups": []} if uid is not None else {}
    warden = subprocess.Popen(
        command, stdin=given, stdout=out, stderr=errors, env={}, cwd="/", start_new_session=True, pass_fds=[write_end],
        **options,
    )  # fmt: skip
    os.close(write_end)
    late = True
    try:
        with contextlib.suppress(subprocess.TimeoutExpired):
            warden.wait(wall + 5)  # it keeps the time itself
            late = False
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(warden.pid, signal.SIGKILL)
        warden.wait()
        os.set_blocking(read_end, False)  # whoever still holds the other end is not waited for
        with open(read_end, "rb") as pipe:
            report = (pipe.read() or b"").decode()
    if not report:  # killed, by us or by the kernel; or it did not even start
        ended = warden.returncode
        report = f"failed with exit status {ended}" if 0 < ended < 128 else f"{-signal.SIGKILL} {int(late)} 0"
    return report.splitlines()[0]


def _bubblewrap(home, disk):
    words = [shutil.which("bwrap"), "--unshare-all", "--die-with-parent", "--clearenv", "--proc", "/proc"]
    words += ["--dev", "/dev"]
    for path in ("/tmp", "/box"):
        words += ["--size", str(disk), "--tmpfs", path]
    for path in _readable():  # after what they may lie below
        words += ["--ro-bind", path, path]
    for name in ("main.py", "run.py"):
        words += ["--ro-bind", f"{home}/box/{name}", f"/box/{name}"]
    return [*words, "--"]


@functools.cache
def _readable():
    """Where the interpreter and its libraries are, outer folders first."""
    paths = ["/usr", "/bin", "/lib", "/lib64", "/etc/ld.so.cache", os.path.realpath(sys.base_prefix), *PACKAGES]
    return sorted({path for path in paths if os.path.lexists(path)})


_SLOTS = threading.BoundedSemaphore(len(os.sched_getaffinity(0)))  # programs at a time: as many as cores
_COUNTER = itertools.count(secrets.randbelow(10**8))  # process ids are neighbours, and containers have the same ones
