"""--plan against a step of the training's own code on fake tensors, at full size."""

import re
import subprocess
from argparse import ArgumentTypeError

import pytest

from bench.harness import ROOT
from bench.simulate import CELLS, read_cell
from tests.support.warm_python import python

# a fifth of the layers, which are all alike; with adapters, or of another shape, the head would weigh too much then
FEWER = """
import bench.simulate as it
it.SHAPES |= {name: (family, layers // 5, *rest) for name, (family, layers, *rest) in it.SHAPES.items()}
it.main()
"""


def simulate(*cells, fewer=False):
    start = ["-c", FEWER] if fewer else ["-m", "bench.simulate"]
    words = [*python(), *start, "--cells", *cells]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=900)


@pytest.mark.slow
@pytest.mark.parametrize(
    "cell",
    [
        "7b:16384:8:auto",
        "7b:32768:8:auto",
        "3b:65536:8:selective",
        "3b:16384:1:full",
        "7b:16384:1:full:lora=16",
        "3b:32768:32:full:lora=16",
    ],
)
def test_the_plan_is_what_a_step_takes(cell):
    """Memory within 5 %, a checkpoint's copy and the matrix products, recomputed ones too, within 1 %."""
    done = simulate(cell, fewer=cell.startswith("3b") and "lora" not in cell)
    assert done.returncode == 0, done.stderr[-2000:]
    names, row = ([text.strip() for text in line.split("|")[1:-1]] for line in done.stdout.splitlines()[-3::2])
    found = dict(zip(names, row, strict=True))
    assert found["model:row:ranks:mode"] == cell and 0.95 < float(found["planned / tracked"]) < 1.05, row
    assert float(found["CPU GiB planned"]) == pytest.approx(float(found["CPU GiB of a checkpoint"]), rel=0.01)
    assert 0.99 < float(found["products planned / counted"]) < 1.01
    # an estimate; the layers' kernels fused, less is moved
    for gpu in ("A800", "H100"):
        eager, compiled = (int(share.strip(" %")) for share in found[f"MFU on {gpu}, compiled"].split(","))
        assert 20 < eager < compiled < 75


def test_the_cells_are_those_of_the_tables():
    """docs/scaling.md has a row for each, of memory or of MFU, and no row of another."""
    page, named = (ROOT / "docs/scaling.md").read_text(encoding="utf-8"), set()
    for size, rows, gpus, mode, lora in re.findall(r"^\| (\d+B), (\d+)k, (\d+), (\w+)(?:, LoRA (\d+))? \|", page, re.M):
        named.add(f"{size.lower()}:{int(rows) * 1024}:{gpus}:{mode}" + f":lora={lora}" * bool(lora))
    for size, rows, mode in re.findall(r"^\| (\d+B), (\d+)k, `?(full|auto)\b", page, re.M):
        named.add(f"{size.lower()}:{int(rows) * 1024}:8:{mode}")
    assert set(CELLS.split()) == named and len(CELLS.split()) == len(named) > 20


SHAPE = "is not tiny|135m|1.5b|3b|7b|14b:ROW TOKENS:RANKS:none|products|selective|full|auto, then perhaps :lora=RANK"


@pytest.mark.parametrize(
    "cell, said",
    [
        *((cell, SHAPE) for cell in ("7b:16384:8", "8b:16384:8:full", "7b:16k:8:full", "7b:16384:8:full:rank=2", "")),
        *(
            (cell, SHAPE)
            for cell in ("7b:-1:8:full", "7b:16384:8:full:lora=-1", "7b:\u0661\u0662:8:full", "7b:1e9:8:full")
        ),
        ("7b:5:8:full", "a row's tokens must be from 6 to 16777216, not 5"),
        ("7b:100000000000:8:full", "a row's tokens must be from 6 to 16777216, not 100000000000"),
        ("7b:16384:0:full", "ranks must be from 1 to 1024, not 0"),
        ("7b:16384:100000000000:full", "ranks must be from 1 to 1024, not 100000000000"),
        ("7b:16384:8:full:lora=100000000000", "lora must be from 0 to 3584, not 100000000000"),
    ],
)
def test_a_cell_that_cannot_be_is_named(cell, said):
    with pytest.raises(ArgumentTypeError) as error:
        read_cell(cell)
    assert str(error.value).startswith(repr(cell)) and said in str(error.value)


def test_a_wrong_cell_ends_the_command_in_one_line():
    done = simulate("7b:16384:8:full", "7b:16384")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert (
        "argument --cells: '7b:16384' is not tiny|135m|1.5b|3b|7b|14b:ROW TOKENS:RANKS:" in done.stderr.splitlines()[-1]
    )
