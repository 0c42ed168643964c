"""The pocket run's scripted teacher in a process of its own, as runs/pocket.sh starts it."""

import contextlib
import socket
import subprocess
import sys
import time

from tests.support.scripts import ROOT


@contextlib.contextmanager
def scripted_teacher():
    """The address under which it answers."""
    port = free_port()
    teacher = subprocess.Popen(
        [sys.executable, "-m", "pocket.teacher", "--port", str(port)], cwd=ROOT, stdout=-3, stderr=-3
    )
    try:
        end = time.monotonic() + 60
        while True:
            with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
                break
            assert teacher.poll() is None and time.monotonic() < end, "the teacher does not start"
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        teacher.kill()
        teacher.wait()


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]
