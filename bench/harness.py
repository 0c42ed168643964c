"""What benchmarks share: models' shapes, the machine in one line, a Markdown table, a fresh process with its memory."""

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
from transformers import LlamaConfig, PretrainedConfig, Qwen2Config

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

# layers, hidden, MLP, query heads, key/value heads, vocabulary, tied: of SmolLM2-135M and of Qwen2.5
SHAPES = {
    "tiny": (Qwen2Config, 4, 256, 704, 4, 2, 8192, True),
    "135m": (LlamaConfig, 30, 576, 1536, 9, 3, 49152, True),
    "1.5b": (Qwen2Config, 28, 1536, 8960, 12, 2, 151936, True),
    "3b": (Qwen2Config, 36, 2048, 11008, 16, 2, 151936, True),
    "7b": (Qwen2Config, 28, 3584, 18944, 28, 4, 152064, False),
    "14b": (Qwen2Config, 48, 5120, 13824, 40, 8, 152064, False),
}


def config_of(shape: str, **keys) -> PretrainedConfig:
    """Make the config of a shape of SHAPES. keys: further ones of the config."""
    family, layers, hidden, mlp, heads, kv_heads, vocabulary, tied = SHAPES[shape]
    return family(
        num_hidden_layers=layers, hidden_size=hidden, intermediate_size=mlp, num_attention_heads=heads,
        num_key_value_heads=kv_heads, vocab_size=vocabulary, tie_word_embeddings=tied, max_position_embeddings=32768,
        **keys,
    )  # fmt: skip


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


def run(*words, limit: float | None = None, **environment: str) -> tuple[dict | None, str, int]:
    """Run this Python with `words` in a fresh process, from the repository's root.

    limit: seconds, after which it is killed. Returns what the process handed to `report` (None: nothing), its output
    and its exit status.
    """
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile("w+") as log:
        path, command = Path(folder) / "report.json", [sys.executable, *map(str, words)]
        env = os.environ | QUIET | {"BENCH_REPORT": str(path), "PYTHONPATH": str(ROOT)} | environment
        with subprocess.Popen(command, cwd=ROOT, env=env, stdout=log, stderr=log) as process:
            try:
                process.wait(limit)
            except subprocess.TimeoutExpired:
                process.kill()
        log.seek(0)
        return json.loads(path.read_text()) if path.exists() else None, log.read(), process.returncode


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
