"""The benchmarks of the client and of the head and the check of a GPU, run whole in a small setting."""

import os
import subprocess

import pytest

from bench.harness import ROOT
from tests.support.warm_python import everywhere, python


def rows(*words, timeout=300):
    """{name in the row: its cells} of the table that a benchmark prints."""
    words, env = [*python(), "-m", *words], os.environ | everywhere()
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=timeout, env=env)
    assert done.returncode == 0, done.stderr[-2000:]
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in done.stdout.splitlines() if "|" in line]
    return cells


def test_the_client_beside_bare_aiohttp():
    names, _, ours, bare = rows("bench.endpoint_client", "--calls", "200", "--in-flight", "50")
    assert (ours[1], bare[1]) == ("ours", "bare aiohttp")
    rate = names.index("calls/s")
    for row in (ours, bare):
        assert 0 < float(row[rate]) <= 50 / 0.05  # the stub's latency is real


@pytest.mark.parametrize(
    "words, said",
    [
        (["bench.versus_trl", "sft", "--cases", "tinny:512"], "argument --cases: 'tinny:512' is not tiny|135m|"),
        (["bench.versus_trl", "cogpo", "--cases", "tiny"], "argument --cases: 'tiny' is not tiny|135m|"),
    ],
)
def test_words_that_cannot_be_meant_are_one_line(words, said):
    done = subprocess.run([*python(), "-m", *words], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2 and "Traceback" not in done.stderr and said in done.stderr.splitlines()[-1]


def test_the_head_beside_others():
    sizes = ("--tokens", "64", "--vocabulary", "512", "--hidden", "32", "--repeats", "1")
    names, _, ours, full, liger = rows("bench.head", *sizes, "--rows", "ours", "naive", "liger")
    assert (ours[0], ours[names.index("time ×")], ours[names.index("memory ×")]) == ("ours", "1", "1")
    for row in (ours, full):
        assert max(map(float, row[names.index("log p") :])) < 1e-4  # against float64
    assert liger[0].startswith("Liger") and ("needs CUDA" in liger[0] or float(liger[1]) > 0)


@pytest.mark.slow
def test_the_check_of_a_gpu_walks_to_its_end_without_one():
    """Kernels, tests, trainings, compilation, the head, a long sequence: every line in small."""
    found = {row[0]: row[1:] for row in rows("bench.gpu_check", timeout=1800)}
    assert found["test: test_sigterm_and_resume"] == ["passed", "ok"]
    assert "first loss 0.693147" in found["CogPO of tiny, compile=true"][0]
    assert found["SFT, one sequence of 256 tokens"][1] == "ok"
