"""`python` without the imports: its commands run in forks of one process that has imported torch and all scripts.

    subprocess.run([*python(), "train_sft.py", "out=…"], …)    in tests, for [sys.executable, "train_sft.py", "out=…"]

The tests start hundreds of commands, each of which would import for seconds. A fork is a process of its own as well:
arguments, environment, working folder, streams and exit status are those of the command, SIGTERM and SIGINT reach it,
and it does not outlive a killed client. What differs: the code is ROOT's, whatever PYTHONPATH says; libraries have
read their environment variables (HF_HOME and its like); all forks share one hash seed. Tests that are about these, or
limit the process start sys.executable. A SIGKILL would end the client before the command: `kill` ends both.
Programs that start sys.executable themselves, torchrun among them, start such a `python` with `everywhere`.
"""

import atexit
import contextlib
import gc
import importlib
import json
import os
import random
import runpy
import select
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ("build_crv", "train_sft", "train_cogpo", "evaluate")
LATER = (  # what scripts import only once they need it
    "matplotlib.pyplot",
    "torch._dynamo",
    "torch.distributed.checkpoint.state_dict",
    "torch.distributed.fsdp",
    "torch.utils.tensorboard",
    "transformers.models.llama.modeling_llama",
    "transformers.models.mistral.modeling_mistral",
    "transformers.models.qwen2.modeling_qwen2",
)


@cache
def python():
    """The words before a script, -m or -c. The first call starts the process that is forked; it ends with this one.

    With a GPU it is an interpreter as ever: CUDA does not outlive a fork.
    """
    if os.environ.get("TEST_GPU"):
        return (sys.executable,)
    folder = tempfile.mkdtemp()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"{folder}/socket")
    listener.listen(64)
    server = subprocess.Popen(
        [sys.executable, __file__, str(listener.fileno())], cwd=ROOT, stdin=subprocess.PIPE, stdout=-3,
        pass_fds=[listener.fileno()], env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    listener.close()
    words = (sys.executable, "-I", "-S", __file__, f"{folder}/socket")
    command = Path(folder) / "python"
    command.write_text(f'#!/bin/sh\ncase "$1" in -I|/*) exec {words[0]} "$@" ;; esac\nexec {shlex.join(words)} "$@"\n')
    command.chmod(0o755)

    @atexit.register
    def end():
        server.stdin.close()
        server.wait()
        shutil.rmtree(folder)

    return words


def everywhere():
    """The environment in which `python` by PATH, and sys.executable of what is run so, are words of `python()`.

    Scripts by their full path and what is to be isolated (-I) get an interpreter as ever: they are none of ours.
    """
    folder = Path(python()[-1]).parent
    return {"PATH": f"{folder}:{os.environ['PATH']}", "SYS_EXECUTABLE": f"{folder}/python"} if len(python()) > 1 else {}


def kill(process):
    """SIGKILL a command of `python` and wait for its end."""
    process.send_signal(signal.SIGUSR1 if len(python()) > 1 else signal.SIGKILL)
    assert process.wait(60) == -signal.SIGKILL


def ask(path, words):
    """Have the server at `path` run words with this process's streams, folder and environment, and end as they end."""
    with socket.socket(socket.AF_UNIX) as server:
        server.connect(path)
        request = json.dumps([words, os.getcwd(), dict(os.environ)]).encode()
        socket.send_fds(server, [len(request).to_bytes(4, "big")], [0, 1, 2])
        server.sendall(request)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda number, _: server.send(bytes([number])))
        signal.signal(signal.SIGUSR1, lambda *_: server.send(bytes([signal.SIGKILL])))
        status = server.recv(4)
    assert status, "the process that is forked has ended"
    code = os.waitstatus_to_exitcode(int.from_bytes(status, "big"))
    if code < 0:
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    sys.exit(code)


def serve(listener):
    """Fork for each connection until stdin closes. Returns the words of a command in the fork that is to run it."""
    for name in (*SCRIPTS, *LATER):
        importlib.import_module(name)
    gc.freeze()  # a collection in a fork would copy all of that
    assert len(os.listdir("/proc/self/task")) == 1, "a process with threads cannot be forked"
    while True:
        ready, _, _ = select.select([listener, 0], [], [])
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if 0 in ready:
            os._exit(0)
        connection, _ = listener.accept()
        if os.fork() == 0:
            return attend(connection)
        connection.close()


def attend(connection):
    """Read a request and fork once more: the parent passes signals and the exit status on, the child gets the words."""
    size, streams, _, _ = socket.recv_fds(connection, 4, 3)
    request, size = b"", int.from_bytes(size, "big")
    while len(request) < size:
        request += connection.recv(size - len(request))
    words, folder, environment = json.loads(request)
    job = os.fork()
    if job == 0:
        connection.close()
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        random.seed()
        return words
    for stream in streams:
        os.close(stream)
    ended = os.pidfd_open(job)
    while True:
        ready, _, _ = select.select([connection, ended], [], [])
        if ended in ready:
            break
        numbers = connection.recv(16)
        for number in numbers or [signal.SIGKILL]:
            os.kill(job, number)
        if not numbers:
            break
    status = os.waitpid(job, 0)[1]
    with contextlib.suppress(BrokenPipeError):
        connection.sendall(status.to_bytes(4, "big"))
    os._exit(0)


def run(words):
    """Do as `python words…`, without tearing down what the fork has imported: that takes longer than most commands.

    Exits with the command's status.
    """
    code, sys.executable = 1, os.environ.get("SYS_EXECUTABLE", sys.executable)
    try:
        execute(words)
        code = 0
    except SystemExit as left:
        code = left.code if isinstance(left.code, int) else int(left.code is not None)
        if isinstance(left.code, str):
            print(left.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        threading._shutdown()
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def execute(words):
    """A script, -m module or -c code; -u, which torchrun gives its ranks, says nothing here."""
    words = words[words[0] == "-u" :]
    if words[0] == "-c":
        sys.argv = ["-c", *words[2:]]
        exec(compile(words[1], "<string>", "exec"), {"__name__": "__main__"})
    elif words[0] == "-m":
        sys.argv = words[1:]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = words
        sys.path[0] = str(Path(words[0]).resolve().parent)
        runpy.run_path(words[0], run_name="__main__")


if __name__ == "__main__":
    if sys.argv[1].isdecimal():
        run(serve(socket.socket(fileno=int(sys.argv[1]))))
    else:
        ask(sys.argv[1], sys.argv[2:])
