"""The paper's tables through evaluate.py: on a bare machine, and filled by a run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pocket.tiny import make_model
from tests.support.tiny import sums
from tests.support.warm_python import python

ROOT = Path(__file__).resolve().parents[2]


def evaluate(home, *words, warm=True):
    """Run it with no hub in reach and nothing in its cache. warm: False for an interpreter that would look for it."""
    bare = {key: value for key, value in os.environ.items() if key != "HF_HUB_OFFLINE"}
    bare |= {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(home / "hub")}
    command = [
        *(python() if warm else [sys.executable]),
        "evaluate.py",
        *words,
        f"out={home}/eval",
        f"report={home}/report",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, env=bare)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("table1", "| Hard | 9 | 31 | 127 |"),
        ("table2", "| AIME2024 | 10.0 | 20.0 | <u>26.7</u> | 23.3 | 23.3 | <u>26.7</u> | **30.0** |"),
        ("figure4", "| LiveCodeBench V2 | – | – | – | – |"),
    ],
)
def test_a_bare_machine_renders_what_is_published(tmp_path, name, row):
    done = evaluate(tmp_path, "--config", f"configs/paper/{name}.yaml", "--render-only", warm=name != "table2")
    assert row in done.stdout.splitlines()
    assert "no cells of" not in done.stderr and "etry" not in done.stderr  # nothing was looked for
    assert not (tmp_path / "eval").exists(), "it writes nothing but the report"
    assert {"table.md", "table.html", "table.tex", "table.png"} <= {f.name for f in (tmp_path / "report").iterdir()}


def test_a_run_fills_the_papers_cells_and_keeps_them_when_rendered_again(tmp_path):
    model, file = make_model(tmp_path / "model"), tmp_path / "test.jsonl"
    rows = [{"id": pid, "problem": prompt[0]["content"], "answer": "7"} for pid, prompt, *_ in sums(6)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = [
        *(f"models.mine={model}", "tables.t.paper=table2", "tables.t.columns={CogPO: mine}", "max_new_tokens=4"),
        *("benchmarks.AIME2024.kind=local", f"benchmarks.AIME2024.file={file}", "benchmarks.MATH-500={}"),
    ]
    (words_run := list(words)).remove("benchmarks.MATH-500={}")
    first = evaluate(tmp_path, *words_run).stdout
    assert "| 0.0 %<br>0/6 [0.0, 39.0]<br>paper 30.0 (−30.0)<br>9/30 [16.7, 47.9] |" in first
    assert "<br>paper 84.4<br>422/500 [81.0, 87.3] |" in first  # not asked for: still –, beside the paper's
    again = evaluate(tmp_path, *words, "--render-only", warm=False)
    assert again.stdout == first and "MATH-500" not in again.stderr  # without responses: it is not looked for
