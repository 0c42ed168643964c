"""Calling `python evaluate.py` in tests: its process, its files, and the one line of a refusal."""

import json
import subprocess
import time
from pathlib import Path

from tests.support.warm_python import kill, python

ROOT = Path(__file__).resolve().parents[2]


def run(*command, warm=True, **kwargs):
    """command: sys.executable and what follows. warm: False for a new interpreter, which reads its own environment."""
    command = [*python(), *command[1:]] if warm else command
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, **kwargs)


def kill_at(command, file, count):
    """Run until the file has so many lines, then SIGKILL."""
    process = subprocess.Popen(
        [*python(), *command[1:]], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 200
    while not file.exists() or file.read_bytes().count(b"\n") < count:
        assert process.poll() is None and time.monotonic() < deadline, "it must be killed in the middle"
        time.sleep(0.01)
    kill(process)


def lines(file):
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def error_line(done):
    """The one line of a failed run. No traceback, exit status 2."""
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    return line
