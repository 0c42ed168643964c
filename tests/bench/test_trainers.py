"""What the benchmarks rest on: tables, fresh processes, comparable losses, and this project's side of a comparison.

The other side needs TRL (bench/requirements.txt) and is left to the benchmark itself.
"""

import math

import pytest

from bench.harness import run, table
from bench.versus_trl import agree, chains, make_model, measure, our_settings, summary, triads
from data.records import write_jsonl


def test_table_rounds_and_shows_what_is_missing():
    rows = [{"case": "a", "rate": 1.23456, "memory": None}, {"case": "b", "rate": 12345.6, "memory": 3}]
    assert table(rows).splitlines() == [
        "| case | rate | memory |", "| --- | --- | --- |", "| a | 1.23 | – |", "| b | 12346 | 3 |"
    ]  # fmt: skip


def test_a_fresh_process_reports_its_memory_peak():
    code = (
        "import mmap; from bench.harness import memory_now, memory_peak, report; base = memory_now();"
        "held = mmap.mmap(-1, 200 << 20); [held.write(bytes(1 << 20)) for _ in range(200)]; held.close();"
        "report(peak=memory_peak() - base, now=memory_now() - base)"
    )
    found, *_ = run("-c", code)
    assert 200 < found["peak"] / 2**20 < 220
    assert found["now"] < 20 * 2**20


def test_a_process_that_fails_has_no_report_but_words():
    assert run("-c", "print('no'); raise SystemExit(3)") == (None, "no\n", 3)


def test_a_process_ends_at_its_limit():
    assert run("-c", "import time; print('on', flush=True); time.sleep(600)", limit=5) == (None, "on\n", -9)


def test_triads_share_responses_and_stay_under_the_length():
    rows = triads(40, 1024)
    assert len(rows) == 120 and {r["gap"] for r in rows} == {"small", "medium", "large"}
    assert len(chains(rows)) == 120  # three responses a problem, however many pairs they are in
    texts = [row[side][0]["content"] for row in rows for side in ("chosen", "rejected")]
    assert max(map(len, texts)) == 1024 - 128 and len(set(map(len, texts))) > 10


def test_disagreeing_or_idle_losses_make_a_comparison_void():
    agree({"ours": [0.6931, 0.60], "TRL": [0.6932, 0.60]})
    agree({})  # nothing ran
    for losses in ([0.6931, 0.61], [0.6931]):
        with pytest.raises(SystemExit, match="void: TRL"):
            agree({"ours": [0.6931, 0.60], "TRL": losses})
    with pytest.raises(SystemExit, match="do not move"):
        agree({"ours": [0.6931, 0.6931], "TRL": [0.6931, 0.6930]})


def test_the_summary_compares_the_fastest_and_the_leanest():
    def one(side, seconds, memory):
        times = {"seconds": [seconds, seconds], "cpu_seconds": [seconds / 2, seconds / 2]}
        return (side, f"{seconds} s"), times | {"memory": memory}

    found = dict([one("ours", 2.0, 3e9), one("ours", 3.0, 1e9), one("TRL", 6.0, 8e9)])
    rows, ratios = summary("case", found, items=12, unit="pair")
    assert [row["pairs/s"] for row in rows] == [6.0, 4.0, 2.0]
    assert list(ratios.values()) == [3.0, 3.0, 3 / 8, 1 / 8]
    assert list(ratios)[1:3] == ["pairs/CPU-s, each at its fastest", "memory, GB, each at its fastest"]
    assert summary("case", dict([one("ours", 2.0, 3e9)]), items=12, unit="pair")[1] == {}  # the other did not fit
    assert summary("case", {}, items=12, unit="pair") == ([], {})


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench") / "tiny"
    make_model(str(folder), "tiny")
    return str(folder)


@pytest.mark.parametrize("kind", ["cogpo", "sft"])
def test_our_side_runs(kind, model, tmp_path):
    pairs = triads(2, 256)
    records, file = pairs if kind == "cogpo" else chains(pairs), str(tmp_path / "records.jsonl")
    write_jsonl(file, records)
    found = measure(*next(our_settings(kind, model, file, 256, len(records), steps=3)))
    assert len(found["losses"]) == 3 and len(found["seconds"]) == len(found["cpu_seconds"]) == 2
    first = math.log(2) if kind == "cogpo" else math.log(8192)  # as equals, and a guess among all words
    assert found["losses"][-1] < found["losses"][0] == pytest.approx(first, rel=0.03)
    assert found["memory"] > 0
