"""Programs that mean harm: each must end without passing, and nothing outside its cell may be touched or told.

ATTACKS is {name: function of a mode of grading/programs.py}; a function raises AssertionError where its attack
succeeds. bench/sandbox.py counts them, tests/grading/test_hostile.py runs them one by one. On a kernel without Landlock
or a filter of system calls, mode `bare` stops few of them, and no mode stops those in NEED_FILTER; `isolation()` says
so.
"""

import ctypes
import os
import shutil
import socket
import sys
import tempfile
import textwrap
import time
import uuid
from pathlib import Path

from grading.programs import Limits, run_tests

QUICK = Limits(seconds=1.0)
SECRET = "forty" + "-" + "two"  # what the tests expect; no program spells it


def refused(mode, program, expected=SECRET, given="", function=None, limits=QUICK):
    """The verdict of a program that must not pass."""
    tests = {"fn_name": function, "inputs": [[] if function else given], "outputs": [expected]}
    verdict = run_tests(textwrap.dedent(program), tests, limits, mode=mode)
    assert verdict.status != "passed", f"it passed: {verdict}"
    return verdict


MARKED = "import os, sys\nif len(sys.argv) == 1: os.execv({python!r}, [{python!r}, '-I', '-S', 'main.py', {mark!r}])\n"


def marked(program):
    """(program whose processes carry a mark on their command line, the mark)"""
    mark = uuid.uuid4().hex
    return MARKED.format(python=sys.executable, mark=mark) + textwrap.dedent(program), mark


def gone(mark, seconds=5):
    """Asserts that no process with this mark is left."""
    deadline = time.monotonic() + seconds
    while True:
        left = [folder.name for folder in Path("/proc").glob("[0-9]*") if _mentions(folder, mark)]
        if not left:
            return
        assert time.monotonic() < deadline, f"processes {left} live on"
        time.sleep(0.05)


def _mentions(folder, mark):
    try:
        return mark.encode() in (folder / "cmdline").read_bytes()
    except OSError:  # it has just ended
        return False


def fork_bomb(mode):
    program, mark = marked("while True:\n    try:\n        os.fork()\n    except OSError:\n        pass")
    begin = time.monotonic()
    refused(mode, program)
    assert time.monotonic() - begin < 60
    gone(mark)


def thread_bomb(mode):
    refused(mode, "import threading, time\nwhile True: threading.Thread(target=time.sleep, args=(100,)).start()")


def memory_bomb(mode):
    limits = Limits(seconds=5.0, memory=256 << 20)
    for bomb in ("bytearray(400 << 20)", "[bytearray(10**7) for _ in range(10**6)]", "'x' * 2**40"):
        assert "MemoryError" in refused(mode, bomb, limits=limits).detail


def memory_that_is_not_mapped(mode):
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
    refused(mode, program, "held", limits=Limits(seconds=2.0, memory=256 << 20))


def memory_of_many_processes(mode):
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
    refused(mode, program, "many")


def endless_print(mode):
    for handler in ("raise", "pass"):
        program = f"""
            import sys
            while True:
                try:
                    sys.stdout.write("x" * 100000)
                except BaseException:
                    {handler}
        """
        refused(mode, program, limits=Limits(seconds=1.0, output=1 << 20))


def filling_the_disk(mode):
    program = "for n in range(200):\n    open(f'{n}', 'wb').write(bytes(1 << 20))\nprint('filled')"
    if mode != "bare":  # there it is the disk itself, for as long as the program runs
        refused(mode, program, "filled", limits=Limits(seconds=2.0, disk=8 << 20))


def folders_without_end(mode):
    """Whoever deletes them one inside the other runs out of stack."""
    program = "import os\nfor _ in range(3000):\n    os.mkdir('x')\n    os.chdir('x')"
    refused(mode, program)


def parents_environment(mode):
    os.environ["HOSTILE_SECRET"] = SECRET
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
        print(found)
    """
    try:
        refused(mode, program)
    finally:
        del os.environ["HOSTILE_SECRET"]


def parents_memory(mode):
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
    """
    refused(mode, program)


def parents_files(mode):
    """World-readable and world-writable, and still not read, changed, deleted or joined by another."""
    folder = Path(tempfile.mkdtemp())
    try:
        folder.chmod(0o777)
        (secret := folder / "expected.txt").write_text(SECRET)
        secret.chmod(0o666)
        before = secret.stat()
        refused(mode, f"print(open({str(secret)!r}).read())")
        for path in (secret, folder / "new", Path("/etc/mark"), Path(sys.prefix) / "mark", Path("/usr/mark")):
            refused(mode, f"open({str(path)!r}, 'w').write('was here')")
        for attack in ("os.remove(f)", "os.rename(f, f + '2')", "os.chmod(f, 0)", "os.truncate(f, 0)", "os.utime(f)",
                       "os.link(f, 'here')", "os.mkdir(f + '2')", "os.symlink('x', f + '2')"):  # fmt: skip
            refused(mode, f"import os\nf = {str(secret)!r}\ntry:\n    {attack}\nexcept OSError:\n    pass")
        after = secret.stat()
        assert secret.read_text() == SECRET and [path.name for path in folder.iterdir()] == ["expected.txt"]
        assert (after.st_mode, after.st_mtime_ns, after.st_nlink) == (before.st_mode, before.st_mtime_ns, 1)
        assert not any(os.path.exists(f"{place}/mark") for place in ("/etc", sys.prefix, "/usr"))
    finally:
        shutil.rmtree(folder)


def open_files_of_the_parent(mode):
    """Whatever files it was started with, it can neither read the answer from them nor report a verdict of its own."""
    program = """
        import os
        for number in range(3, 256):
            for action in (lambda: os.write(number, b"0 0 0.01\\n"), lambda: print(os.read(number, 100))):
                try:
                    action()
                except OSError:
                    pass
        for pid in ("self", os.getppid()):
            try:
                for name in os.listdir(f"/proc/{pid}/fd"):
                    if int(name) > 2:
                        with open(f"/proc/{pid}/fd/{name}", "wb", buffering=0) as file:
                            file.write(b"0 0 0.01\\n")
            except OSError:
                pass
        os._exit(7)
    """
    assert refused(mode, program, "").status == "error"  # it would say that all is well


def the_stack(mode):
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
    assert refused(mode, program, function="f").detail == '"not found"'


def equal_to_everything(mode):
    for program in (
        "class Any:\n    def __eq__(self, other): return True\ndef f(): return Any()",
        "class Any(str):\n    __hash__ = None\n    def __eq__(self, other): return True\ndef f(): return Any('x')",
        "class Any(dict):\n    def __eq__(self, other): return True\ndef f(): return Any(x=1)",
        "import json\njson.dump = lambda value, file, **more: file.write('[' * 10**6)\ndef f(): return 1",
        "import json\njson.dump = lambda value, file, **more: file.write('true')\ndef f(): return 1",
    ):
        refused(mode, program, function="f")


def a_socket(mode):
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
            refused(mode, program, "sent")
            try:
                server.accept()
            except BlockingIOError:
                continue
            raise AssertionError(f"a program reached {where}")
    finally:
        for server in servers:
            server.close()
        shutil.rmtree(folder)


def killing_the_parent(mode):
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
    refused(mode, program)  # and we are here to say so


def changing_the_parents_limits(mode):
    program = f"""
        import os, resource
        if os.getpid() != {os.getpid()}:
            resource.prlimit({os.getpid()}, resource.RLIMIT_NOFILE, (3, 3))
            print("did it")
    """
    refused(mode, program, "did it")


def leaving_early(mode):
    for leave in ("import os; os._exit(0)", "raise SystemExit(0)", "import sys; sys.exit()"):
        refused(mode, f"{leave}\ndef f(): return 1", 1, function="f")
        refused(mode, f"def f():\n    {leave}", None, function="f")
        refused(mode, leave)


def swallowing_every_exception(mode):
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
    assert refused(mode, program).status == "timeout"


def a_daemon(mode):
    program, mark = marked("""
        import time
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                time.sleep(300)
            os._exit(0)
        time.sleep(0.3)
        print("unsuspicious")
    """)
    refused(mode, program)
    gone(mark)


def a_world_of_its_own(mode):
    """In a user namespace of its own it would be root, and could mount as much memory as there is."""
    program = """
        import ctypes
        libc = ctypes.CDLL(None)
        done = libc.unshare(0x10020000) == 0 and libc.mount(b"x", b"/tmp", b"tmpfs", 0, b"size=1g") == 0
        print("root" if done else "nobody")
    """
    refused(mode, program, "root")


ATTACKS = {
    function.__name__.replace("_", " "): function
    for function in (
        fork_bomb, thread_bomb, memory_bomb, memory_that_is_not_mapped, memory_of_many_processes, endless_print,
        filling_the_disk, folders_without_end, parents_environment, parents_memory, parents_files,
        open_files_of_the_parent, the_stack, equal_to_everything, a_socket, killing_the_parent,
        changing_the_parents_limits, leaving_early, swallowing_every_exception, a_daemon, a_world_of_its_own,
    )
}  # fmt: skip
NEED_FILTER = ("memory that is not mapped", "memory of many processes", "a world of its own")


def has_filter_and_landlock():
    """Whether this kernel can do what grading/cell.py asks of it; asked of the kernel, not of grading/cell.py."""
    filters = "Seccomp:" in Path("/proc/self/status").read_text() and os.uname().machine in ("x86_64", "aarch64")
    return filters and ctypes.CDLL(None).syscall(444, None, 0, 1) > 0


def possible(attack, mode):
    """Whether this attack can be stopped in this mode on this kernel."""
    return has_filter_and_landlock() or not (mode == "bare" or attack in NEED_FILTER)
