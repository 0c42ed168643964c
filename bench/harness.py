"""What every benchmark needs: the machine in one line, a Markdown table, and a fresh process with its memory."""

import importlib.metadata
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
# as runs/setup.sh sets them for training; both sides of a comparison get the same
QUIET = {
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "MALLOC_MMAP_THRESHOLD_": "10000000000",
    "MALLOC_TRIM_THRESHOLD_": "10000000000",
    "MALLOC_TOP_PAD_": "268435456",
}


def environment_line(*packages: str) -> str:
    """Describe the run in one line: hardware, Python, versions of torch, transformers and `packages`, commit, load."""
    versions = [f"{name} {_version(name)}" for name in ("torch", "transformers", *packages)]
    described = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, text=True, capture_output=True)
    cpu = re.findall(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    machine = f"{len(os.sched_getaffinity(0))} cores of {cpu[0] if cpu else platform.machine()}, {memory:.0f} GB"
    cuda = torch.cuda.is_available()
    gpu = f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}" if cuda else "no GPU"
    load = f"load {os.getloadavg()[0]:.1f} at the start"
    python = f"Python {platform.python_version()}"
    return "; ".join([f"{machine}, {gpu}", python, *versions, f"commit {described.stdout.strip() or 'unknown'}", load])


def table(rows: list[dict]) -> str:
    """Lay out dicts with the same keys as a Markdown table. Floats get three significant digits, None a dash."""

    def cell(value):
        if isinstance(value, float):
            return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"
        return "–" if value is None else str(value)

    names = list(rows[0])
    lines = [names, ["---"] * len(names), *[[cell(row[name]) for name in names] for row in rows]]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def run(*words, threads: int | None = None) -> tuple[dict | None, str]:
    """Run this Python with `words` in a fresh process, from the repository's root.

    threads: OMP_NUM_THREADS (default: as it is). Returns what the process handed to `report` (None: nothing) and the
    last 4,000 characters of its output.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "report.json"
        env = os.environ | QUIET | {"BENCH_REPORT": str(path), "PYTHONPATH": str(ROOT)}
        env |= {"OMP_NUM_THREADS": str(threads)} if threads else {}
        command = [sys.executable, *map(str, words)]
        done = subprocess.run(command, cwd=ROOT, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        return json.loads(path.read_text()) if path.exists() else None, done.stdout[-4000:]


def report(**values) -> None:
    """Hand numbers to the benchmark that started this process with `run`."""
    Path(os.environ["BENCH_REPORT"]).write_text(json.dumps(values))


def memory_now() -> int:
    """Bytes held now: torch's allocations on CUDA, else this process's resident memory."""
    return torch.cuda.memory_allocated() if torch.cuda.is_available() else _status("VmRSS")


def memory_peak() -> int:
    """Bytes held at most since the process began: torch's allocations on CUDA, else resident memory."""
    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else _status("VmHWM")


def _status(field):
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[field].split()[0]) * 1024


def _version(package):
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
