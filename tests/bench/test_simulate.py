"""--plan against a step of the training's own code on fake tensors, at full size."""

import subprocess
import sys

import pytest

from bench.harness import ROOT


@pytest.mark.slow
@pytest.mark.parametrize(
    "cell", ["7b:16384:8:none", "7b:32768:8:selective", "3b:65536:8:selective", "7b:16384:1:full:lora=16"]
)
def test_the_plan_is_what_a_step_takes(cell):
    """Memory within 5 %, a checkpoint's copy and the matrix products, recomputed ones too, within 1 %."""
    words = [sys.executable, "-m", "bench.simulate", "--cells", cell]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-2000:]
    row = [text.strip() for text in done.stdout.strip().splitlines()[-1].split("|")[1:-1]]
    name, memory, copied, planned, products = row[0], float(row[3]), float(row[4]), float(row[5]), float(row[6])
    assert name == cell and 0.95 < memory < 1.05, row
    assert planned == pytest.approx(copied, rel=0.01) and 0.99 < products < 1.01, row
