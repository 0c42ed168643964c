"""Calling `python build_crv.py` in tests: its command line, a small problem file, and what a refusal looks like."""

import json
import re
import subprocess
import sys
from pathlib import Path

from agents.keys import Config
from tests.support.warm_python import python

ROOT = Path(__file__).parents[2]


def keys(**given):
    """The keys of a run of which only some matter."""
    return Config(problems="p", out="o", endpoints={}, **given)


def write_problems(path, count):
    rows = [
        {
            "id": f"p{n}",
            "problem": f"What is {n} plus {n}?",
            "answer": str(2 * n),
            "reasoning": f"chain{n}: {n} + {n} = {2 * n}",
        }
        for n in range(1, count + 1)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def command(problems, out, url, *words):
    return [
        sys.executable, "tests/support/quick_crv.py", f"problems={problems}", f"out={out}",
        f"endpoints.teacher.base_url={url}", "endpoints.teacher.model=m", "endpoints.teacher.retries=2",
        "endpoints.teacher.concurrency=8", "response_style=plain", "probe=false", *words,
    ]  # fmt: skip


def run(*args, **kwargs):
    line = command(*args) if "preexec_fn" in kwargs else [*python(), *command(*args)[1:]]
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=300, **kwargs)


def check_refused(done, message, lines=1):
    assert done.returncode == 2
    assert "Traceback" not in done.stderr and len(done.stderr.strip().splitlines()) <= lines, done.stderr
    assert re.search(message, done.stderr.strip().splitlines()[-1]), done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("error: ")
