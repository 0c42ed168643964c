"""Programs that mean harm: each must end without passing, and nothing outside may be touched or told.

Every attack runs in every way of isolation that works here. Each test says how its attack must end, as one that fails
by a slip of its own would show nothing; after each, nothing may be left where programs run.
"""

import os
import shutil
import socket
import sys
import tempfile
import textwrap
import time
import uuid
from pathlib import Path

import pytest

from grading.programs import BARE, Limits, best_way, mode, run_tests
from tests.support.isolation import WAYS

QUICK = Limits(seconds=1.0)
SECRET = "forty" + "-" + "two"  # what the tests expect; no program spells it


@pytest.fixture(params=WAYS, ids=mode)
def way(request) -> str:
    """Each way that works here."""
    return request.param


@pytest.fixture(autouse=True)
def nothing_is_left(monkeypatch):
    """Programs run below a folder of the test's own, which everybody may enter, and which is empty afterwards."""
    folder = tempfile.mkdtemp()
    os.chmod(folder, 0o755)
    monkeypatch.setattr(tempfile, "tempdir", folder)
    yield
    assert os.listdir(folder) == []
    os.rmdir(folder)


def refused(way: str, program: str, expected=SECRET, function=None, limits=QUICK) -> tuple[str, str]:
    """Return (status, last words) of a program that must not pass, nor learn the secret, and must end in its time."""
    tests = {"fn_name": function, "inputs": [[] if function else ""], "outputs": [expected]}
    begin = time.monotonic()
    verdict = run_tests(textwrap.dedent(program), tests, limits, way=way)
    assert verdict.status != "passed", f"it passed: {verdict}"
    assert SECRET not in verdict.detail
    assert time.monotonic() - begin < 6 * limits.seconds + 2 + 20  # the time on the clock, on a crowded machine
    return verdict.status, verdict.detail.strip()


def marked(program: str) -> tuple[str, str]:
    """Return (a program whose processes carry a mark on their command line, the mark)."""
    mark = uuid.uuid4().hex
    program = "import os, threading, time\n" + textwrap.dedent(program)
    command = [os.path.realpath(sys._base_executable), "-I", "-S", "-c", program, mark]
    return f"import os\nos.execv({command[0]!r}, {command})", mark


def assert_gone(mark: str, seconds: float = 5) -> None:
    """Check that no process with this mark is left."""
    deadline = time.monotonic() + seconds
    while left := [folder.name for folder in Path("/proc").glob("[0-9]*") if _mentions(folder, mark)]:
        assert time.monotonic() < deadline, f"processes {left} live on"
        time.sleep(0.05)


def _mentions(folder: Path, mark: str) -> bool:
    try:
        return mark.encode() in (folder / "cmdline").read_bytes()
    except OSError:  # it has just ended
        return False


def test_this_suite_can_fail(way):
    with pytest.raises(AssertionError, match="it passed"):
        refused(way, f"print({SECRET!r})")


def test_the_best_way_is_one_that_works():
    assert best_way() == WAYS[0]


def test_fork_bomb(way):
    program, mark = marked("while True:\n    try:\n        os.fork()\n    except OSError:\n        pass")
    assert refused(way, program)[0] == "timeout"
    assert_gone(mark)


def test_thread_bomb(way):
    program, mark = marked("while True: threading.Thread(target=time.sleep, args=(100,)).start()")
    status, words = refused(way, program, limits=Limits(seconds=0.2))
    assert status == "timeout" or words == "RuntimeError: can't start new thread"
    assert_gone(mark)


def test_memory_bomb(way):
    limits = Limits(seconds=5.0, memory=256 << 20)
    for bomb in ("bytearray(400 << 20)", "[bytearray(10**7) for _ in range(10**6)]", "'x' * 2**40"):
        assert refused(way, bomb, limits=limits) == ("error", "MemoryError")


def test_memory_that_is_not_mapped(way):
    """Segments and files in memory count towards no limit of a process."""
    program = """
        import ctypes, os
        libc = ctypes.CDLL(None)
        held = 0
        for n in range(40):
            try:
                file = os.memfd_create("x")
                os.write(file, bytes(10 << 20))
                held += 10
            except OSError:
                pass
            if libc.shmget(0, 10 << 20, 0o1600) >= 0:
                held += 10
        print("held" if held > 256 else "not held")
    """
    limits = Limits(seconds=2.0, memory=256 << 20)
    assert refused(way, program, "held", limits=limits) == ("wrong", "not held")


def test_memory_of_many_processes(way):
    """The limit is one process's: sixteen of them would have sixteen times as much."""
    program = """
        import os, time
        count = 0
        for _ in range(16):
            try:
                if os.fork() == 0:
                    block = bytearray(100 << 20)
                    time.sleep(0.5)
                    os._exit(0)
                count += 1
            except OSError:
                pass
        print("many" if count > 7 else "few")
    """
    assert refused(way, program, "many") == ("wrong", "few")


@pytest.mark.parametrize(
    "handler, ends", [("raise", ("error", "OSError: [Errno 27] File too large")), ("pass", ("timeout", "after "))]
)
def test_endless_print(way, handler, ends):
    program = f"""
        import sys
        while True:
            try:
                sys.stdout.write("x" * 100000)
            except BaseException:
                {handler}
    """
    status, words = refused(way, program, limits=Limits(seconds=1.0, output=1 << 20))
    assert status == ends[0] and words.startswith(ends[1])


def test_filling_the_disk(way):
    program = "for n in range(200):\n    open(f'{n}', 'wb').write(bytes(1 << 20))\nprint('filled')"
    if way == BARE:
        pytest.skip("in bare it is the disk itself, for as long as the program runs")
    status, words = refused(way, program, "filled", limits=Limits(seconds=2.0, disk=8 << 20))
    assert (status, words) == ("error", "OSError: [Errno 28] No space left on device")


def test_folders_without_end(way):
    """Whoever deletes them one inside the other runs out of stack; under bubblewrap they go with its file system."""
    program = "import os\nfor _ in range(3000):\n    os.mkdir('x')\n    os.chdir('x')\nprint('done')"
    forbidden = ("error", "PermissionError: [Errno 1] Operation not permitted: 'x'")
    assert refused(way, program) == (forbidden if way == BARE else ("wrong", "done"))


def test_parents_environment(way, monkeypatch):
    monkeypatch.setenv("HOSTILE_SECRET", SECRET)
    program = """
        import glob, os
        found = os.environ.get("HOSTILE_SECRET", "")
        for path in glob.glob("/proc/[0-9]*/environ") + [f"/proc/{os.getppid()}/environ"]:
            try:
                for line in open(path, "rb").read().split(b"\\0"):
                    if line.startswith(b"HOSTILE_SECRET="):
                        found = line[15:].decode()
            except OSError:
                pass
        print(found or "nothing")
    """
    assert refused(way, program) == ("wrong", "nothing")


def test_parents_memory(way):
    """Of the processes above it, through /proc and through the call that debuggers use."""
    program = f"""
        import ctypes, os
        def read(pid):
            for line in open(f"/proc/{{pid}}/maps"):
                span, access = line.split()[:2]
                begin, end = (int(x, 16) for x in span.split("-"))
                if "r" in access and end - begin < 1 << 26:
                    try:
                        with open(f"/proc/{{pid}}/mem", "rb") as memory:
                            memory.seek(begin)
                            if ("forty" + "-two").encode() in memory.read(end - begin):
                                return True
                    except (OSError, OverflowError):
                        pass
        for pid in {{{os.getpid()}, {os.getppid()}}} - {{os.getpid()}}:  # in a namespace 1 is the program itself
            try:
                if read(pid) or ctypes.CDLL(None).ptrace(16, pid, 0, 0) == 0:
                    print("forty" + "-two")
            except OSError:
                pass
        print("nothing")
    """
    assert refused(way, program) == ("wrong", "nothing")


def test_parents_files(way):
    """World-readable and world-writable, and still not read, changed, deleted or joined by another."""
    folder = Path(tempfile.mkdtemp())
    try:
        folder.chmod(0o777)
        (secret := folder / "expected.txt").write_text(SECRET)
        secret.chmod(0o666)
        before = secret.stat()
        assert refused(way, f"print(open({str(secret)!r}).read())")[0] == "error"
        for path in (secret, folder / "new", Path("/etc/mark"), Path(sys.prefix) / "mark", Path("/usr/mark")):
            # an environment below /tmp has its parts in the namespace's own /tmp, which what is written there goes with
            own = way != BARE and path.is_relative_to(sys.prefix) and path.is_relative_to("/tmp")
            assert refused(way, f"open({str(path)!r}, 'w').write('was here')")[0] == ("wrong" if own else "error")
        for attack in ("os.remove(f)", "os.rename(f, f + '2')", "os.chmod(f, 0)", "os.truncate(f, 0)", "os.utime(f)",
                       "os.link(f, 'here')", "os.mkdir(f + '2')", "os.symlink('x', f + '2')"):  # fmt: skip
            words = f"import os\nf = {str(secret)!r}\ntry:\n    {attack}\nexcept OSError:\n    print('no')"
            assert refused(way, words) == ("wrong", "no")
        after = secret.stat()
        assert secret.read_text() == SECRET and [path.name for path in folder.iterdir()] == ["expected.txt"]
        assert (after.st_mode, after.st_mtime_ns, after.st_nlink) == (before.st_mode, before.st_mtime_ns, 1)
        assert not any(os.path.exists(f"{place}/mark") for place in ("/etc", sys.prefix, "/usr"))
    finally:
        shutil.rmtree(folder)


def test_open_files_of_the_parent(way):
    """Whatever files it was started with, it can neither read the answer from them nor report a verdict of its own."""
    program = """
        import os
        for number in range(3, 256):
            for action in (lambda: os.write(number, b"0 0 0.01\\n"), lambda: print(os.read(number, 100))):
                try:
                    action()
                except OSError:
                    pass
        try:
            processes = [int(name) for name in os.listdir("/proc") if name.isdigit()]
        except OSError:
            processes = []
        pids = {os.getpid(), os.getppid(), *processes}
        for path in [f"/proc/{pid}/fd/{number}" for pid in pids for number in range(3, 256)]:
            try:
                with open(path, "wb", buffering=0) as file:
                    file.write(b"0 0 0.01\\n")
            except OSError:
                pass
        os._exit(7)
    """
    assert refused(way, program, "") == ("error", "exit status 7")  # else it would say that all is well


def test_the_stack(way):
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
    assert refused(way, program, function="f") == ("wrong", '"not found"')


def test_equal_to_everything(way):
    dumped = "import json\njson.dump = lambda value, file, **more: file.write({})\ndef f(): return 1"
    for ends, program in (
        (("error", "TypeError: the result holds a Any"),
         "class Any:\n    def __eq__(self, other): return True\ndef f(): return Any()"),
        (("wrong", '"x"'),
         "class Any(str):\n    __hash__ = None\n    def __eq__(self, other): return True\ndef f(): return Any('x')"),
        (("wrong", '{"x": 1}'), "class Any(dict):\n    def __eq__(self, other): return True\ndef f(): return Any(x=1)"),
        (("wrong", "[" * 200), dumped.format("'[' * 10**6")),
        (("wrong", "true"), dumped.format("'true'")),
    ):  # fmt: skip
        assert refused(way, program, function="f") == ends


def test_a_socket(way):
    """To a server of this machine: in the same network, by name, and by a file that everybody may use."""
    folder = tempfile.mkdtemp()
    name = f"\0{uuid.uuid4().hex}"
    try:
        os.chmod(folder, 0o755)
        servers = [socket.create_server(("127.0.0.1", 0))]
        for path in (name, f"{folder}/socket"):
            servers.append(socket.socket(socket.AF_UNIX))
            servers[-1].bind(path)
            servers[-1].listen()
        os.chmod(f"{folder}/socket", 0o777)
        for server in servers:
            server.setblocking(False)
            where = server.getsockname()
            program = f"""
                import socket
                one = socket.socket(socket.{server.family.name})
                one.settimeout(1)
                one.connect({where.decode() if isinstance(where, bytes) else where!r})
                one.send(b"x")
                print("sent")
            """
            assert refused(way, program, "sent")[1].startswith("PermissionError")
            try:
                server.accept()
            except BlockingIOError:
                continue
            raise AssertionError(f"a program reached {where}")
    finally:
        for server in servers:
            server.close()
        shutil.rmtree(folder)


def test_killing_the_parent(way):
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
    assert refused(way, program) == ("wrong", "did it")  # and we are here to say so


def test_changing_the_parents_limits(way):
    program = f"""
        import os, resource
        if os.getpid() != {os.getpid()}:
            resource.prlimit({os.getpid()}, resource.RLIMIT_NOFILE, (3, 3))
            print("did it")
    """
    assert refused(way, program, "did it")[1].startswith("PermissionError")


def test_leaving_early(way):
    for leave in ("import os; os._exit(0)", "raise SystemExit(0)", "import sys; sys.exit()"):
        assert refused(way, f"{leave}\ndef f(): return 1", 1, "f") == ("wrong", "")
        assert refused(way, f"def f():\n    {leave}", None, "f") == ("wrong", "")
        assert refused(way, leave) == ("wrong", "")


def test_swallowing_every_exception(way):
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
    assert refused(way, program)[0] == "timeout"


def test_a_daemon(way):
    program, mark = marked("""
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                time.sleep(300)
            os._exit(0)
        time.sleep(0.3)
        print("unsuspicious")
    """)
    assert refused(way, program) == ("error", "PermissionError: [Errno 1] Operation not permitted")
    assert_gone(mark)


def test_a_world_of_its_own(way):
    """In a user namespace of its own it would be root, and could mount as much memory as there is."""
    program = """
        import ctypes
        libc = ctypes.CDLL(None)
        done = libc.unshare(0x10020000) == 0 and libc.mount(b"x", b"/tmp", b"tmpfs", 0, b"size=1g") == 0
        print("root" if done else "nobody")
    """
    assert refused(way, program, "root") == ("wrong", "nobody")


def test_settings_of_the_kernel(way):
    """A process that is root can write them without any capability, and core_pattern names a program to run."""
    program = """
        import glob
        for path in glob.glob("/proc/sys/*/*") + ["/proc/sysrq-trigger", "/proc/1/mem"]:
            try:
                with open(path, "r+b"):
                    print("open")
            except OSError:
                pass
        print("done")
    """
    assert refused(way, program, "open") == ("wrong", "done")
