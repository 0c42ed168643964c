"""The patches of docs/loss.md, data.md and evaluation.md, applied to a copy of the tree, do what the pages say."""

import json
import re
import shutil
import subprocess
import sys

import pytest

from tests.support.scripts import ROOT, cogpo_words, metrics

BLOCK = re.compile(r"^```diff\n(.*?)^```", re.DOTALL | re.MULTILINE)
PAGES = [(ROOT / f"docs/{name}.md").read_text(encoding="utf-8") for name in ("loss", "data", "evaluation")]


def patched(folder, name):
    """A copy of the tree with the pages' patch that touches the file `name`."""
    (patch,) = (block for page in PAGES for block in BLOCK.findall(page) if f"+++ b/{name}" in block)
    for room in ("agents", "data", "evals", "grading", "losses", "model", "pages"):
        shutil.copytree(ROOT / room, folder / room, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ROOT.glob("*.py"):
        shutil.copy(file, folder)
    applied = subprocess.run(["git", "apply", "-v"], cwd=folder, input=patch, text=True, capture_output=True)
    assert applied.returncode == 0, applied.stderr
    return folder


def run(folder, *words):
    done = subprocess.run([sys.executable, *map(str, words)], cwd=folder, text=True, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_a_loss(tiny_qwen, files, tmp_path):
    tree = patched(tmp_path / "tree", "losses/ipo.py")
    extra = {"loss.name": "ipo", "loss.beta": 0.1, "epochs": 4}
    run(tree, "train_cogpo.py", *cogpo_words(tiny_qwen, files, tmp_path / "out", **extra))
    losses = [line["loss"] for line in metrics(tmp_path / "out")]
    assert losses[0] == pytest.approx(25.0)  # (0 − 1/(2 · 0.1))²
    assert min(losses) < 10
    assert all(line["large/margin"] < 2 for line in metrics(tmp_path / "out"))  # drawn to τ z = 1/2, not pushed on


def test_a_data_source(tmp_path):
    tree = patched(tmp_path / "tree", "data/formats.py")
    row = {"prompt": "1 + 1?", "llm_response": "<think>\n1 + 1 = 2\n</think>\n\nTwo.", "score": 1.0,
           "verification_info": json.dumps({"ground_truth": "2"}), "task_type": "verifiable_math"}  # fmt: skip
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row | {"score": score}) + "\n" for score in (1.0, 0.0)))
    said = run(tree, "-m", "data.sources", f"path={tmp_path}/rows.jsonl", f"out={tmp_path}/problems.jsonl")
    (record,) = map(json.loads, (tmp_path / "problems.jsonl").read_text().splitlines())
    assert (record["problem"], record["answer"], record["reasoning"]) == ("1 + 1?", "2", "1 + 1 = 2")
    assert "left out: 1 a chain judged to be wrong" in said


def test_a_benchmark(tmp_path):
    tree = patched(tmp_path / "tree", "evals/benchmarks.yaml")
    (tmp_path / "rows.jsonl").write_text(json.dumps({"id": "1", "problem": "70 + 3?", "answer": "73"}) + "\n")
    script = f"""
from evals.benchmarks import family, instruction, load
from evals.benchmarks.common import BenchmarkConfig
(problem,) = load("aime2025", BenchmarkConfig(file={str(tmp_path / "rows.jsonl")!r}))
module = family(problem.kind)
print(instruction(problem, "paper"), module.grade(problem, "So it is \\\\boxed{{073}}.", True).status)
"""
    assert run(tree, "-c", script).strip() == "Return your final response within \\boxed{}. {problem} correct"
