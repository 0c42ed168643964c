"""Graded overlap with benchmarks: the same problem in other typography is found, stock phrases are not."""

import json
from pathlib import Path

import pytest

from data.decontaminate import STOCK, Benchmarks, grams_of, write_overlaps
from errors import UserError

PROBLEM = (
    "Let $n$ be the least positive integer such that $\\left(\\frac{n}{3}\\right)^2 + 7n$ is a multiple of $45$. "
    "Find the remainder when $n$ is divided by $1000$."
)
RETYPED = (
    "Let n be the least positive integer such that  \\[ (\\dfrac{n}{3})^2+7n \\] is a multiple of 45.\n"
    "find the remainder when n is divided by 1000"
)
STOCK_PHRASE = (
    "Find the remainder when $n$ is divided by $1000$, where $n$ is the number of ways to tile a $2$ by $9$ board."
)


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def left_out(tmp_path, problems, benchmark, overlap=0.6):
    """ids that are left out."""
    benchmarks = Benchmarks([write(tmp_path / "bench.jsonl", [{"problem": text} for text in benchmark])])
    flagged = [pair for i, text in enumerate(problems) for pair in benchmarks.overlaps(str(i), text, overlap)]
    write_overlaps(str(tmp_path / "clean.jsonl"), flagged, benchmarks)
    return list(dict.fromkeys(pair["id"] for pair in flagged))


def test_typography_is_no_difference():
    assert grams_of(PROBLEM) == grams_of(RETYPED)


def test_a_problem_is_found_and_a_stock_phrase_is_not(tmp_path, capsys):
    longer = f"Here is a contest problem. {RETYPED} Explain every step."
    assert left_out(tmp_path, [STOCK_PHRASE, RETYPED, longer, "Something else entirely."], [PROBLEM]) == ["1", "2"]
    printed = capsys.readouterr().out
    assert "1 of 1 problems share an 8-gram, 1 are repeated" in printed


def test_the_threshold_decides_and_near_misses_are_listed(tmp_path):
    half = PROBLEM[: PROBLEM.index("a multiple")] + "even. How many digits has it?"
    assert left_out(tmp_path, [half], [PROBLEM]) == []
    (pair,) = map(json.loads, (tmp_path / "clean.jsonl.overlaps.jsonl").read_text().splitlines())
    assert 0.3 < pair["share"] < 0.6 and not pair["left_out"]
    assert left_out(tmp_path, [half], [PROBLEM], pair["share"]) == ["0"]


def test_short_problems_must_be_equal(tmp_path):
    assert left_out(tmp_path, ["Compute 2+2 now.", "compute $2 + 2$", "Please compute 2+2 for me, and then 3+3."],
                    ["Compute 2+2."]) == ["1"]  # fmt: skip


def test_what_many_benchmark_problems_share_does_not_count(tmp_path):
    stem = "For which of these two scenarios does the main character do something clearly wrong by ordinary standards?"
    benchmark = [f"{stem} The {animal} number {n} {animal}" for n, animal in enumerate(["cat"] * (STOCK + 1))]
    other = f"{stem} An altogether different pair of scenarios follows, about boats and rivers and bridges."
    assert left_out(tmp_path, [other], benchmark) == []
    assert left_out(tmp_path, [other], benchmark[:STOCK]) == ["0"]


def test_a_benchmark_without_problems_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"bench.jsonl:1: a problem needs one of the keys problem, question"):
        Benchmarks([write(tmp_path / "bench.jsonl", [{"text": "?"}])])


DATA = Path(__file__).parents[3] / "shared/data"


@pytest.mark.skipif(not (DATA / "gsm8k").is_dir(), reason="needs ../shared/data")
def test_on_real_benchmarks():
    """81 of GSM8K's test problems share some 8-gram with a training problem; one is a training problem retold."""
    benchmarks = Benchmarks([DATA / "gsm8k/test.jsonl", DATA / "math500/test.jsonl"])
    flagged = set()
    for number, line in enumerate((DATA / "gsm8k/train.jsonl").open()):
        flagged |= {(p["benchmark"], p["benchmark_id"]) for p in
                    benchmarks.overlaps(str(number), json.loads(line)["question"], 0.6)}  # fmt: skip
    assert len(flagged) == 1 and {name for name, _ in flagged} == {"gsm8k/test.jsonl"}
    assert sum(share > 0 for share in benchmarks.best) == 81
