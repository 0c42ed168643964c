"""The benchmarks' own parts: tables, fresh processes, comparable losses, and this project's side of a comparison.

The other side needs TRL (bench/requirements.txt) and is left to the benchmark itself.
"""

import math
import sys

import pytest

from bench.common import Run, python, run, table
from bench.compare import Candidate, agree, measure, summary
from bench.trl_cogpo import our_candidates
from bench.trl_sft import our_candidates as our_sft_candidates
from bench.workload import chains, triads, write


def test_table_rounds_and_shows_what_is_missing():
    rows = [{"case": "a", "rate": 1.23456, "memory": None}, {"case": "b", "rate": 12345.6, "memory": 3}]
    assert table(rows).splitlines() == [
        "| case | rate | memory |", "| --- | --- | --- |", "| a | 1.23 | – |", "| b | 12346 | 3 |"
    ]  # fmt: skip


def test_a_fresh_process_reports_its_memory_peak():
    code = (
        "import mmap; from bench.common import memory_now, memory_peak, report; base = memory_now();"
        "held = mmap.mmap(-1, 200 << 20); [held.write(bytes(1 << 20)) for _ in range(200)]; held.close();"
        "report(peak=memory_peak() - base, now=memory_now() - base)"
    )
    done = run(python("-c", code))
    assert done.status == 0 and done.seconds > 0
    assert 200 < done.report["peak"] / 2**20 < 220
    assert done.report["now"] < 20 * 2**20


def test_a_failing_or_slow_process_is_told_from_a_good_one():
    assert run([sys.executable, "-c", "print('no'); raise SystemExit(3)"]) == Run(
        3, pytest.approx(0, abs=9), None, "no\n"
    )
    assert run([sys.executable, "-c", "import time; time.sleep(60)"], timeout=0.5).status == 124


def test_triads_share_responses_and_stay_under_the_length():
    rows = triads(40, 1024)
    assert len(rows) == 120 and {r["gap"] for r in rows} == {"small", "medium", "large"}
    assert len(chains(rows)) == 120  # three responses a problem, however many pairs they are in
    texts = [row[side][0]["content"] for row in rows for side in ("chosen", "rejected")]
    assert max(map(len, texts)) == 1024 - 128 and len(set(map(len, texts))) > 10


def reported(losses, side="ours", same=True):
    return Candidate(side, str(losses), side, {}, same), [{"losses": losses}]


def test_disagreeing_or_idle_losses_make_a_comparison_void():
    agree(
        dict([reported([0.6931, 0.60]), reported([0.6932, 0.60], "TRL"), reported([0.6931, 0.7], "other", same=False)])
    )
    with pytest.raises(SystemExit, match="void: TRL"):
        agree(dict([reported([0.6931, 0.60]), reported([0.6931, 0.61], "TRL")]))
    with pytest.raises(SystemExit, match="void: TRL"):
        agree(dict([reported([0.6931, 0.60]), reported([0.6931], "TRL")]))
    with pytest.raises(SystemExit, match="do not move"):
        agree(dict([reported([0.6931, 0.6931]), reported([0.6931, 0.6930], "TRL")]))


def test_the_summary_compares_the_fastest_and_the_leanest():
    def one(name, seconds, memory, reference):
        report = {"seconds": [99.0, seconds, seconds], "cpu_seconds": [99.0, seconds / 2, seconds / 2]}
        return Candidate(name, f"{seconds} s", name, {}), [report | {"memory": memory, "reference": reference}]

    found = dict([one("ours", 2.0, 3e9, 1.0), one("ours", 3.0, 1e9, 1.0), one("TRL", 6.0, 8e9, 3.0)])
    sides = [[c for c in found if c.name == name] for name in ("ours", "TRL")]
    rows, ratios = summary("case", found, sides, items=12, unit="pairs")
    assert [row["pairs/s"] for row in rows] == [6.0, 4.0, 2.0]
    assert [row[""] for row in rows] == ["fastest", "leanest", "fastest, leanest"]
    assert ratios == {
        "pairs/s": 3.0,
        "pairs/s of one epoch with its reference pass": pytest.approx(3.0),
        "pairs/CPU-s": 3.0,
        "memory, fastest settings": 3 / 8,
        "memory, leanest settings": 1 / 8,
    }


def test_our_cogpo_side_starts_at_ln2(tiny_qwen, tmp_path):
    pairs = triads(2, 256)
    file = write(tmp_path / "pairs.jsonl", pairs)
    candidate = next(iter(our_candidates(tiny_qwen, file, 1000, len(pairs), steps=1, cuda=False)))
    done = measure(candidate, threads=1, timeout=120)
    assert len(done["losses"]) == len(done["seconds"]) == len(done["cpu_seconds"]) == 2
    assert done["losses"][1] < done["losses"][0] == pytest.approx(math.log(2), abs=1e-5)
    assert done["memory"] > 0 and done["reference"] > 0


def test_our_sft_side_runs(tiny_qwen, tmp_path):
    examples = chains(triads(2, 256))
    file = write(tmp_path / "sft.jsonl", examples)
    candidate = next(iter(our_sft_candidates(tiny_qwen, file, 1000, len(examples), steps=1, cuda=False)))
    done = measure(candidate, threads=1, timeout=120)
    assert done["losses"][1] < done["losses"][0] < 2 * math.log(400)
    assert len(done["seconds"]) == 2 and done["reference"] == 0.0
