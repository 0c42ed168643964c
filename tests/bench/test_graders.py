"""bench.graders: its arithmetic, and another grader that hangs costs one item and not the run."""

import subprocess
import sys

import pytest

from bench import graders
from bench.harness import ROOT


def test_counts_rejects_accepts_and_timeouts():
    items = [graders.pair(said, "2", said == "2") for said in ("2", "2", "3", "3", "2")]
    assert graders.counts(items, [True, False, True, False, "timeout"]) == "2 / 1 (1 timed out)"
    assert graders.counts(items, [True, True, False, False, True]) == "0 / 0"
    assert graders.counts(items, [True, None, True, True, True]) is None


def test_ours_reads_text_pairs_and_tolerances():
    items = [
        graders.item("so it is \\boxed{12}", "12", True),
        graders.pair("1.41", "\\sqrt{2}", True, tolerance=0.01),
        graders.pair("1.41", "\\sqrt{2}", False),
    ]
    assert items[0].said == "12"
    assert graders.ours(items) == [True, True, False]


def test_rows_become_items(tmp_path):
    rows = '{"answer": "1", "solution": "so \\\\boxed{1}"}\n{"answer": "1 "}\n{"answer": "2"}\n'
    (tmp_path / "math500").mkdir()
    (tmp_path / "math500/test.jsonl").write_text(rows)
    (shifted,) = graders.read_corpus("MATH-500, next answers", tmp_path)  # the first two are the same text
    assert (shifted.gold, shifted.said, shifted.equal) == ("1 ", "2", False)
    assert [it.equal for it in graders.read_corpus("MATH-500, own answers", tmp_path)] == [True, True, True]


def test_a_grader_that_hangs_is_a_timeout_and_the_next_item_is_graded(monkeypatch):
    monkeypatch.setattr(graders, "HARD_LIMIT", 0.5)  # math-verify itself stops after 5 s on the clock
    items = [
        graders.pair("\\frac{2}{4}", "1/2", True),
        graders.pair("(10^8)!", "42", False),
        graders.pair("5", "4", False),
    ]
    assert graders.other(sys.executable, "math_verify", items) == [True, "timeout", False]


def test_an_interpreter_without_the_library_is_named():
    with pytest.raises(RuntimeError, match=r"other_graders\.py is_equiv did not start"):
        graders.other(sys.executable, "is_equiv", [graders.pair("1", "1", True)])


@pytest.mark.parametrize("module", ["bench.graders", "bench.programs_speed"])
def test_without_its_data_a_benchmark_says_so(module, tmp_path):
    command = [sys.executable, "-m", module, "--data", str(tmp_path / "nowhere")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and "nowhere: --data FOLDER" in done.stderr
