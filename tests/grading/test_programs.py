"""The sandbox: verdicts on tests, modes of isolation, limits."""

import json
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

import pytest

from bench.hostile import has_filter_and_landlock
from errors import UserError
from grading import programs as sandbox
from grading.programs import Limits, execute, run_tests

ROOT = Path(__file__).parents[2]
QUICK = Limits(seconds=1.0)


def stdin_case(program, expected, given="", **options):
    options.setdefault("limits", QUICK)
    return run_tests(textwrap.dedent(program), {"inputs": [given], "outputs": [expected]}, **options)


def call_case(program, expected, *arguments, name="f", **options):
    options.setdefault("limits", QUICK)
    tests = {"fn_name": name, "inputs": [list(arguments)], "outputs": [expected]}
    return run_tests(textwrap.dedent(program), tests, **options)


def passes(verdict):
    return (verdict.status, verdict.exact, verdict.tolerant) == ("passed", True, True)


# --- verdicts ---


@pytest.mark.parametrize(
    ("printed", "expected", "exact", "tolerant"),
    [
        ("3", "3\n", True, True),
        ("3  \n\n", "3", True, True),
        ("1 2\n3", "1 2\n3\n", True, True),
        ("2.50", "2.5", True, True),
        ("0.33333334", "0.33333333", False, True),
        ("x 0.33333334", "x 0.33333333", False, True),
        ("0.3334", "0.3333", False, False),
        ("1000000001", "1000000000", False, False),  # whole numbers have no tolerance
        ("1\n2", "1 2", False, False),
        ("YES", "yes", False, False),
        ("nan", "1.5", False, False),
        ("sNaN", "1", False, False),
        ("1e999999999", "1.5", False, False),
        ("", "0", False, False),
    ],
)
def test_printed_output(printed, expected, exact, tolerant):
    verdict = stdin_case(f"print({printed!r})", expected)
    assert (verdict.exact, verdict.tolerant) == (exact, tolerant)
    assert verdict.status == ("passed" if tolerant else "wrong")


@pytest.mark.parametrize(
    ("returned", "expected", "exact", "tolerant"),
    [
        ("[1, 'a', None, True]", [1, "a", None, True], True, True),
        ("(1, 2)", [1, 2], True, True),
        ("{'a': [0.1 + 0.2]}", {"a": [0.3]}, False, True),
        ("3", 4, False, False),
        ("'3'", 3, False, False),
        ("[[1], [2]]", [[1], [3]], False, False),
        ("float('nan')", 1.5, False, False),
        ("None", 3, False, False),
        ("3", [3], False, False),
    ],
)
def test_returned_values(returned, expected, exact, tolerant):
    verdict = call_case(f"def f(): return {returned}", expected)
    assert (verdict.exact, verdict.tolerant) == (exact, tolerant)


def test_functions_are_found_where_leetcode_and_apps_put_them():
    program = """
        class Solution:
            def add(self, numbers: List[int], by: Optional[int] = 1) -> List[int]:
                print("debugging")
                return [number + by for number in numbers]
    """
    assert passes(call_case(program, [2, 3], [1, 2], name="add"))
    assert passes(call_case("def add(a, b):\n    return a + b", 3, 1, 2, name="add"))
    assert passes(call_case("def f(): return 3", [3], wrapped=True))  # APPS
    assert passes(
        call_case("def f(): return [pow(2, 3, 5), floor(2.5), inf > 1]", [3, 2, True])
    )  # no import shadows pow
    assert "no attribute 'f'" in call_case("def g(): return 3", 3).detail
    dataclass = (
        "from __future__ import annotations\nfrom dataclasses import dataclass\n@dataclass\nclass A:\n    x: List[int]"
    )
    assert passes(call_case(dataclass + "\ndef f(): return A([1]).x", [1]))


def test_stdin_is_real():
    program = "import sys\nfirst = input()\nrest = sys.stdin.read()\nprint(first + rest, end='')"
    assert passes(stdin_case(program, "abé", "a\nbé"))
    assert passes(stdin_case("print(open(0).read())", "7", ["7", ""]))  # lines, as some datasets have it
    assert passes(stdin_case("import sys\nsys.stdin = open('/dev/stdin')\nprint(input())\nexit()", "7", "7"))
    assert passes(stdin_case("def main():\n    print(7)\nif __name__ == '__main__':\n    main()", "7"))


def test_every_test_must_pass_and_the_first_that_fails_is_named():
    program = "n = int(input())\nprint(n * n if n < 3 else 1 / 0)"
    tests = {"inputs": ["1", "2", "3", "4"], "outputs": ["1", "4", "9", "16"]}
    verdict = run_tests(program, tests, QUICK)
    assert (verdict.status, verdict.test, verdict.detail) == ("error", 2, "ZeroDivisionError: division by zero")
    assert passes(run_tests(program, tests, QUICK, most=2))
    close = run_tests("print(input() + '1')", {"inputs": ["0.5000000", "0.25"], "outputs": ["0.5", "0.251"]}, QUICK)
    assert (close.status, close.exact, close.tolerant) == ("passed", False, True)


@pytest.mark.parametrize(
    ("tests", "message"),
    [
        ({"inputs": [], "outputs": []}, "asked nothing passes nothing"),
        ({"inputs": ["1"], "outputs": []}, "1 inputs and 0 outputs"),
        ({"inputs": ["1"]}, "must be"),
        (["1"], "must be"),
        ({"fn_name": "f", "inputs": ["1"], "outputs": ["1"]}, "list of arguments"),
        ({"fn_name": 3, "inputs": [[1]], "outputs": ["1"]}, "fn_name must be"),
    ],
)
def test_malformed_tests_are_errors(tests, message):
    with pytest.raises(UserError, match=message):
        run_tests("print(1)", tests)


def test_each_test_starts_anew():
    """Nothing survives: neither a file nor a name."""
    program = "import os\nprint(os.path.exists('mark'), os.listdir('/tmp') if os.path.exists('/box') else [])\n"
    program += "open('mark', 'w').write('x')\nif os.path.exists('/box'): open('/tmp/mark', 'w').write('x')"
    tests = {"inputs": ["", ""], "outputs": ["False []", "False []"]}
    assert passes(run_tests(program, tests, QUICK))


@pytest.mark.parametrize("mode", sandbox.MODES)
def test_every_kind_of_isolation_that_works_here(mode):
    if not sandbox.works(mode):
        pytest.skip(f"{mode} is not possible here")
    outcome = execute("import os\nprint(input(), len(os.environ) < 5)", "x", QUICK, mode=mode)
    assert (outcome.status, outcome.stdout) == ("ok", "x True\n")
    assert execute("while True: pass", "", QUICK, mode=mode).status == "timeout"


PLACES = ["/tmp", "/dev/shm", "/var/tmp", "~", "/tmp/with spaces ", "/tmp/link", "/tmp/copies"]
IN_EVERY_MODE = """
import json
from grading import programs as sandbox
program = "import in_the_environment, os, sys; print(input(), in_the_environment.NAME, os.listdir('/tmp'))"
run = lambda mode: sandbox.execute(program, "x", mode=mode).stdout
print(json.dumps({mode: sandbox.why_not(mode) or run(mode) for mode in sandbox.MODES}))
"""


@pytest.mark.parametrize("place", PLACES)
def test_a_virtual_environment_may_lie_anywhere(place, tmp_path):
    """Also where a sandbox has files of its own, behind a link, and where only root may look."""
    parent = Path("/tmp" if place.startswith("/tmp") else place).expanduser()
    prefix = place[5:] if place.startswith("/tmp/") else ""
    with tempfile.TemporaryDirectory(dir=parent, prefix=prefix) as folder:
        command = [sys.executable, "-m", "venv", "--without-pip", f"{folder}/real"]
        subprocess.run([*command, "--copies"] if prefix == "copies" else command, check=True)
        (packages,) = Path(folder, "real/lib").glob("python*/site-packages")
        (packages / "in_the_environment.py").write_text("NAME = 'found'")
        environment = Path(folder, "real")
        if prefix == "link":
            (environment := tmp_path / "link").symlink_to(f"{folder}/real")
        command = [environment / "bin/python", "-c", IN_EVERY_MODE]
        answer = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    said = json.loads(answer)
    assert said[sandbox.isolation_mode()].startswith("x found")
    for mode, words in said.items():  # the user of one run may not look into every folder, and says so
        assert words.startswith("x found") or "Permission denied" in words or words == sandbox.why_not(mode), mode


def test_why_a_better_mode_does_not_serve_is_told(monkeypatch):
    monkeypatch.setattr(sandbox, "why_not", lambda mode: None if mode == "bare" else f"{mode} is forbidden")
    monkeypatch.setattr(sandbox, "_reach", lambda mode: [False] * len(sandbox.REACH))
    for mode in list(sandbox.MODES)[:-1]:
        assert f"not {mode}: {mode} is forbidden" in sandbox.isolation()
    monkeypatch.setattr(sandbox, "why_not", lambda mode: f"{mode} is forbidden")
    with pytest.raises(UserError, match="bare: bare is forbidden"):
        sandbox.isolation()


def test_a_machine_that_cannot_start_programs_is_not_the_programs_fault(monkeypatch):
    head = "def run_program(cfg):\n"
    assert execute("pass", "").status == "ok" and head in sandbox.CELL
    monkeypatch.setattr(sandbox, "CELL", sandbox.CELL.replace(head, head + "    1 / 0\n"))
    with pytest.raises(UserError, match=r"cannot run programs in mode .* division by zero"):
        stdin_case("print(1)", "1")
    monkeypatch.setattr(sandbox, "CELL", "import nonsense")
    with pytest.raises(UserError, match=r"cannot run programs in mode .* exit status 1"):
        stdin_case("print(1)", "1")


@pytest.mark.parametrize("mode", sandbox.MODES)
def test_isolation_says_what_is_in_reach(mode, monkeypatch):
    if not sandbox.works(mode):
        pytest.skip(f"{mode} is not possible here")
    if has_filter_and_landlock():
        assert "no file but the interpreter's, no process, no network" in sandbox.isolation(mode)
    cell = sandbox.CELL.replace('optional(filter_calls, cfg["folders"])', "False").replace(
        "optional(landlock,", "(lambda *_: 0)(0,"
    )
    assert cell != sandbox.CELL
    monkeypatch.setattr(sandbox, "CELL", cell)
    reach = dict(zip(sandbox.REACH, sandbox._reach.__wrapped__(mode), strict=True))
    expected = {"read files of this machine": mode == "bare", "use the network": mode == "bare"}
    assert {name: reach[name] for name in expected} == expected


# --- limits; what hostile programs try is in test_sandbox_hostile.py ---


def test_threads_are_allowed_and_limited():
    program = """
        import threading, time
        threads = []
        try:
            for _ in range(50):
                threads.append(threading.Thread(target=time.sleep, args=(0.2,), daemon=True))
                threads[-1].start()
        except RuntimeError:
            pass
        print(sum(thread.is_alive() for thread in threads))
    """
    outcome = execute(textwrap.dedent(program), "", QUICK)
    assert outcome.status == "ok" and 16 <= int(outcome.stdout) < QUICK.processes


def test_runs_of_neighbouring_processes_share_no_user():
    """They would share its process limit, and in `bare` the end of one run would kill the other."""
    script = "from grading import programs as sandbox; print(next(sandbox._COUNTER))"
    first, second = (
        int(subprocess.run([sys.executable, "-c", script], capture_output=True, cwd=ROOT, check=True).stdout)
        for _ in range(2)
    )
    assert abs(first - second) > 3000


def test_deep_recursion_is_not_an_error():
    """Python's own limit is 1,000 calls, and a cached function takes the stack of C besides."""
    program = "def f(n): return n and 1 + f(n - 1)\nprint(f(40_000))"
    assert passes(stdin_case(program, "40000", limits=Limits()))
    cached = "import functools\n@functools.cache\ndef f(n): return n and 1 + f(n - 1)\nprint(f(20_000))"
    assert passes(stdin_case(cached, "20000", limits=Limits()))


def test_long_numbers_are_not_an_error():
    assert passes(stdin_case("print(len(str(int(input()) * 10**9000)))", "18001", "1" + "0" * 9000))


def test_a_result_may_be_a_number_of_numpy():
    assert passes(call_case("import numpy\ndef f(): return [numpy.int64(3), numpy.float64(0.5)]", [3, 0.5]))
    assert passes(call_case("import numpy\ndef f(): return [numpy.arange(2), numpy.eye(1)]", [[0, 1], [[1.0]]]))
    assert passes(call_case("def f(): return deque([1, deque()])", [1, []]))
    assert call_case("def f(): return {1, 2}", [1, 2]).detail == "TypeError: the result holds a set"


def test_leaving_with_a_status_is_no_error_after_printing():
    for leave in ("sys.exit(1)", "sys.exit('bye')", "exit(main())", "raise SystemExit(2)"):
        program = f"import sys\ndef main():\n    return 1\nprint(7)\n{leave}"
        assert passes(stdin_case(program, "7"))
        assert stdin_case(program, "8").status == "wrong"
    assert stdin_case("import os\nprint(7, flush=True)\nos._exit(1)", "7").status == "error"
    assert call_case("import sys\nsys.exit(1)\ndef f(): return 1", 1).status == "error"
    assert call_case("import sys\ndef f(): sys.exit(1)", None).status == "error"


def test_asking_for_more_stack_is_no_error():
    program = """
        import resource, sys
        resource.setrlimit(resource.RLIMIT_STACK, (resource.RLIM_INFINITY,) * 2)
        resource.setrlimit(resource.RLIMIT_NOFILE, (20, 20))
        print(resource.getrlimit(resource.RLIMIT_NOFILE)[0], resource.getrlimit(resource.RLIMIT_STACK)[1] > 0)
    """
    assert passes(stdin_case(program, "20 True"))


@pytest.mark.parametrize("mode", [mode for mode in sandbox.MODES if mode != "bare"])
def test_folders_of_its_own(mode):
    if not sandbox.works(mode):
        pytest.skip(f"{mode} is not possible here")
    program = """
        import os, tempfile
        with tempfile.TemporaryDirectory() as folder:
            open(os.path.join(folder, "x"), "w").write("7")
            print(open(os.path.join(folder, "x")).read())
        print(os.path.exists(folder))
    """
    assert passes(stdin_case(program, "7\nFalse", mode=mode))


def test_last_words_cannot_steer_a_terminal():
    assert "\x1b" not in stdin_case("print('\\x1b[2J')", "1").detail
    assert "\x1b" not in stdin_case("raise ValueError('\\x1b[2J')", "1").detail


def test_sleeping_counts_as_time():
    begin = time.monotonic()
    assert stdin_case("import time\ntime.sleep(100)", "", limits=Limits(seconds=0.2)).status == "timeout"
    assert time.monotonic() - begin < 20


@pytest.mark.parametrize(
    "program", ["import ctypes\nctypes.string_at(0)", "import os\nos.abort()", "import os\nos._exit(3)", "1 +"]
)
def test_crashes_are_errors(program):
    assert stdin_case(program, "").status == "error"
