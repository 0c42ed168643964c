"""The sandbox: verdicts on tests, and a hostile suite. Each hostile program ends without passing, and nothing outside
its cell is touched."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
import uuid
from pathlib import Path

import pytest

from data import sandbox
from data.errors import UserError
from data.sandbox import Limits, execute, isolation, run_tests

ROOT = Path(__file__).parents[2]
QUICK = Limits(seconds=1.0)
SHUT_IN = sandbox.isolation_mode() != "bare"
shut_in = pytest.mark.skipif(not SHUT_IN, reason=f"this machine has {isolation()}")


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
    assert call_case("def g(): return 3", 3).detail == "KeyError: 'f'"


def test_stdin_is_real():
    program = "import sys\nfirst = input()\nrest = sys.stdin.read()\nprint(first + rest, end='')"
    assert passes(stdin_case(program, "abé", "a\nbé"))
    assert passes(stdin_case("print(open(0).read())", "7", ["7", ""]))  # lines, as some datasets have it


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
    if mode == "bubblewrap" and not shutil.which("bwrap"):
        pytest.skip("bubblewrap is not installed")
    outcome = sandbox._execute(mode, "import os\nprint(input(), len(os.environ) < 5)", "x", QUICK, None)
    if "could not be built" in outcome.detail or "Permission denied" in outcome.detail:
        pytest.skip(f"not possible here: {outcome.detail}")
    assert (outcome.status, outcome.stdout) == ("ok", "x True\n")
    loop = sandbox._execute(mode, "while True: pass", "", QUICK, None)
    assert loop.status == "timeout"


# --- the hostile suite ---

MARKED = (
    "import os, sys\nif len(sys.argv) == 1: os.execv(sys.executable, [sys.executable, '-I', 'main.py', '{mark}'])\n"
)


def processes(mark):
    """Ids of the processes that carry `mark` on their command line, in this namespace's view."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
        except OSError:
            pass  # it has just ended
    return found


def test_a_fork_bomb():
    mark = uuid.uuid4().hex
    bomb = MARKED.format(mark=mark) + "while True:\n    try:\n        os.fork()\n    except OSError:\n        pass"
    begin = time.monotonic()
    assert stdin_case(bomb, "").status in ("timeout", "error")
    assert time.monotonic() - begin < 30
    _gone(mark)


@pytest.mark.skipif(not SHUT_IN and os.geteuid() != 0, reason="the limit then counts all processes of this user")
def test_processes_are_limited():
    program = """
        import os, time
        count = 0
        while count < 50:
            try:
                if os.fork() == 0:
                    time.sleep(100)
            except OSError:
                break
            count += 1
        print(count)
    """
    outcome = execute(textwrap.dedent(program), "", QUICK)
    assert outcome.status == "ok" and int(outcome.stdout) < QUICK.processes


def test_a_daemon_is_not_left_behind():
    mark = uuid.uuid4().hex
    program = MARKED.format(mark=mark) + textwrap.dedent("""
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                import time
                time.sleep(300)
            os._exit(0)
        import time
        time.sleep(0.3)
        print("unsuspicious")
    """)
    assert stdin_case(program, "something else").status == "wrong"
    _gone(mark)


def _gone(mark):
    deadline = time.monotonic() + 5
    while processes(mark):
        assert time.monotonic() < deadline, "it lives on"
        time.sleep(0.05)


@pytest.mark.parametrize(
    "bomb", ["bytearray(400 << 20)", "bytearray(10**12)", "[bytearray(10**7) for _ in range(10**6)]", "'x' * 2**40"]
)
def test_a_memory_bomb(bomb):
    verdict = stdin_case(bomb, "", limits=Limits(seconds=5.0, memory=256 << 20))
    assert verdict.status == "error" and "MemoryError" in verdict.detail


@pytest.mark.parametrize("handler", ["pass", "raise"])
def test_endless_printing(handler):
    program = f"""
        import sys
        while True:
            try:
                sys.stdout.write("x" * 100000)
            except BaseException:
                {handler}
    """
    outcome = execute(textwrap.dedent(program), "", Limits(seconds=1.0, output=1 << 20))
    assert (outcome.status, "too large" in outcome.detail) == {"raise": ("error", True), "pass": ("timeout", False)}[
        handler
    ]
    assert len(outcome.stdout) <= 1 << 20


def test_filling_the_disk():
    program = "for n in range(10**6):\n    open(f'{n}', 'wb').write(bytes(1 << 20))"
    assert stdin_case(program, "", limits=Limits(seconds=2.0, disk=8 << 20)).status in ("error", "timeout")


@shut_in
def test_reading_the_parents_environment():
    program = """
        import glob, os
        found = os.environ.get("PATH", "")
        for path in glob.glob("/proc/[0-9]*/environ"):
            try:
                for line in open(path, "rb").read().split(b"\\0"):
                    if line.startswith(b"PATH="):
                        found = line[5:].decode()
            except OSError:
                pass
        print(found)
    """
    assert stdin_case(program, os.environ["PATH"]).status == "wrong"


@shut_in
def test_reading_and_writing_files_outside():
    """World-writable, and still neither seen nor changed."""
    folder = Path(tempfile.mkdtemp())
    try:
        folder.chmod(0o777)
        (secret := folder / "expected.txt").write_text("forty-two")
        secret.chmod(0o666)
        reader = f"print(open({str(secret)!r}).read())"
        assert stdin_case(reader, "forty-two").status == "error"
        for path in (secret, folder / "new.txt", Path("/etc/mark"), Path(sys.prefix) / "mark", Path("/usr/mark")):
            stdin_case(f"open({str(path)!r}, 'w').write('was here')", "")
        assert secret.read_text() == "forty-two" and [p.name for p in folder.iterdir()] == ["expected.txt"]
        assert not any(os.path.exists(f"{place}/mark") for place in ("/etc", sys.prefix, "/usr"))
    finally:
        shutil.rmtree(folder)


def test_reading_the_stack():
    """The expected value is nowhere in the process: not in a frame, not in an object, not in a file of its own."""
    program = """
        import gc, glob, sys
        def f():
            frame, seen = sys._getframe(), []
            while frame:
                seen += [frame.f_locals, frame.f_globals]
                frame = frame.f_back
            texts = [repr(seen), repr(gc.get_objects()), repr(sys.argv), *(open(p).read() for p in glob.glob("*"))]
            secret = "-".join(["forty", "two"])  # not a constant of this program itself
            return secret if any(secret in text for text in texts) else "not found"
    """
    verdict = call_case(program, "forty-two")
    assert (verdict.status, verdict.detail) == ("wrong", '"not found"')


@pytest.mark.parametrize(
    "program",
    [
        "class Any:\n    def __eq__(self, other): return True\ndef f(): return Any()",
        "class Any(str):\n    __hash__ = None\n    def __eq__(self, other): return True\ndef f(): return Any('x')",
        "class Any(dict):\n    def __eq__(self, other): return True\ndef f(): return Any(x=1)",
        "import json\njson.dump = lambda value, file: file.write('[' * 10**6)\ndef f(): return 1",
        "import json\njson.dump = lambda value, file: file.write('true')\ndef f(): return 1",
    ],
)
def test_a_value_that_equals_everything(program):
    assert call_case(program, "forty-two").status in ("wrong", "error")


@shut_in
def test_a_socket_reaches_nobody():
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        port = server.getsockname()[1]
        program = f"import socket\nsocket.create_connection(('127.0.0.1', {port}), 1).send(b'x')\nprint('sent')"
        verdict = stdin_case(program, "sent")
        assert verdict.status == "error" and "Error" in verdict.detail
        with pytest.raises(BlockingIOError):
            server.accept()


@pytest.mark.skipif(not SHUT_IN and os.geteuid() != 0, reason="this machine cannot keep a program from it")
def test_killing_the_parent():
    program = f"""
        import os, signal
        for pid in (os.getppid(), {os.getpid()}, {os.getppid()}, -1):
            for number in (signal.SIGTERM, signal.SIGKILL):
                try:
                    os.kill(pid, number)
                except OSError:
                    pass
        print("did it")
    """
    assert stdin_case(program, "survived").status in ("wrong", "error")  # and we are here to say so


@pytest.mark.parametrize("leave", ["import os; os._exit(0)", "raise SystemExit(0)", "import sys; sys.exit()"])
def test_leaving_early_is_not_passing(leave):
    assert call_case(f"{leave}\ndef f(): return 1", 1).status in ("wrong", "error")
    assert call_case(f"def f():\n    {leave}", None).status in ("wrong", "error")
    assert stdin_case(leave, "1").status == "wrong"


def test_runs_of_neighbouring_processes_share_no_user():
    """They would share its process limit, and in `bare` the end of one run would kill the other."""
    script = "from data import sandbox; print(next(sandbox._COUNTER))"
    first, second = (
        int(subprocess.run([sys.executable, "-c", script], capture_output=True, cwd=ROOT, check=True).stdout)
        for _ in range(2)
    )
    assert abs(first - second) > 3000


def test_swallowing_every_exception():
    program = """
        import signal
        for number in range(1, 65):
            try:
                signal.signal(number, signal.SIG_IGN)
            except (OSError, ValueError):
                pass
        while True:
            try:
                while True:
                    pass
            except BaseException:
                pass
    """
    assert stdin_case(program, "").status == "timeout"


def test_sleeping_counts_as_time():
    begin = time.monotonic()
    assert stdin_case("import time\ntime.sleep(100)", "", limits=Limits(seconds=0.2)).status == "timeout"
    assert time.monotonic() - begin < 20


@pytest.mark.parametrize(
    "program", ["import ctypes\nctypes.string_at(0)", "import os\nos.abort()", "import sys\nsys.exit(3)", "1 +"]
)
def test_crashes_are_errors(program):
    assert stdin_case(program, "").status == "error"
