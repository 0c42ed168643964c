"""What every benchmark needs: the machine in one line, a Markdown table, and a fresh process with its memory measured.

Only tests import this folder. Memory is what training adds: the peak of a process less what it held right
after its imports (resident memory on a CPU, torch's allocator on CUDA).
"""

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
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


def environment_line(*packages):
    """One line: hardware, operating system, Python, versions of torch, transformers and `packages`, commit, load."""
    versions = [f"{name} {_version(name)}" for name in ("torch", "transformers", *packages)]
    commit = _output("git", "-C", str(ROOT), "describe", "--always", "--dirty")
    load = f"load {os.getloadavg()[0]:.1f} at the start"
    python = f"Python {platform.python_version()}"
    return "; ".join([hardware(), platform.system(), python, *versions, f"commit {commit or 'unknown'}", load])


def hardware():
    """E.g. "2 cores of Intel Xeon …, 24 GB, no GPU" or "NVIDIA H200 (140 GB), 16 cores of …, 128 GB"."""
    cores = f"{len(os.sched_getaffinity(0))} cores of {_cpu_name()}"
    memory = f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 1e9:.0f} GB"
    if not torch.cuda.is_available():
        return f"{cores}, {memory}, no GPU"
    gpu = torch.cuda.get_device_properties(0)
    number = f"{torch.cuda.device_count()} x " if torch.cuda.device_count() > 1 else ""
    return f"{number}{gpu.name} ({gpu.total_memory / 1e9:.0f} GB), {cores}, {memory}"


def table(rows):
    """A Markdown table from a list of dicts with the same keys. Floats get three significant digits, None a dash."""
    names = list(rows[0])
    lines = [names, ["---"] * len(names), *[[_cell(row[name]) for name in names] for row in rows]]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


@dataclass(frozen=True)
class Run:
    """A finished process: exit status, wall-clock seconds, what its `report` wrote (or None), the end of its output."""

    status: int
    seconds: float
    report: dict | None
    tail: str


def run(command, threads=None, timeout=None):
    """Run a command in a fresh process from the repository's root, and read what it reported. Returns a Run.

    command: list of words. The process may call `report(…)`. threads: OMP_NUM_THREADS (default: as it is). timeout:
    seconds after which it is killed, status 124. Its output is kept, not shown; Run.tail holds the end of it.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "report.json"
        env = os.environ | QUIET | {"BENCH_REPORT": str(path), "PYTHONPATH": str(ROOT)}
        env |= {"OMP_NUM_THREADS": str(threads)} if threads else {}
        began = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=ROOT, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        try:
            output, status = process.communicate(timeout=timeout)[0], process.returncode
        except subprocess.TimeoutExpired:
            process.kill()
            output, status = process.communicate()[0], 124
        seconds = time.perf_counter() - began
        found = json.loads(path.read_text()) if path.exists() else None
        return Run(status, seconds, found, output[-4000:])


def python(*words):
    """The command that runs this interpreter with `words`."""
    return [sys.executable, *map(str, words)]


def report(**values):
    """Hand numbers to the benchmark that started this process with `run`."""
    Path(os.environ["BENCH_REPORT"]).write_text(json.dumps(values))


def memory_now():
    """Bytes held now: torch's allocations on CUDA, else this process's resident memory."""
    return torch.cuda.memory_allocated() if torch.cuda.is_available() else _status("VmRSS")


def memory_peak():
    """Bytes held at most since the process began: torch's allocations on CUDA, else resident memory."""
    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else _status("VmHWM")


def _status(field):
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise KeyError(field)


def _cell(value):
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    return "–" if value is None else str(value)


def _cpu_name():
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def _version(package):
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _output(*command):
    done = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    return done.stdout.strip()
