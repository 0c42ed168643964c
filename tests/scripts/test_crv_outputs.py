"""What `python build_crv.py` writes, through its command line, against a real server."""

import json
import os

import pytest

import build_crv
from config import load
from data.records import read_records
from tests.support.crv_cli import ROOT, check_refused, run, write_problems
from tests.support.moody_server import contents, fixed, rows, slowly
from tests.support.scripted_endpoint import Server, error


def test_every_problem_is_accounted_for(whole):
    out, problems, asked = whole
    ids = [row["id"] for row in read_records(problems, "problem")]
    kept, rejected = [r["id"] for r in rows(out, "sft")], [r["id"] for r in rows(out, "rejected")]
    assert sorted(kept + rejected) == sorted(ids) and kept and rejected
    assert [t["id"] for t in rows(out, "traces")] == ids  # the order of the input, not of completion
    assert kept == [i for i in ids if i in set(kept)]
    report = json.loads((out / "report.json").read_text())
    assert report["problems"]["input"] == 60 == report["problems"]["kept"] + report["problems"]["rejected"]
    assert report["problems"]["rejected"] == sum(report["rejected_by_reason"].values()) == len(rejected)
    assert sum(report["levels_before"].values()) == sum(report["levels_after"].values()) == 60
    assert report["levels_after"]["medium"] >= len(kept)
    assert sum(agent["calls"] for agent in report["calls"].values()) == len(asked)
    assert {r["reason"] for r in rows(out, "rejected")} == set(report["rejected_by_reason"])


def test_outputs_are_records_that_training_reads(whole):
    out, _, _ = whole
    for name in ("sft", "sft_original", "sft_c", "sft_cr", "sft_easy", "sft_medium", "sft_hard"):
        for row in read_records(out / f"{name}.jsonl", "sft"):
            assert row["messages"][-1]["content"].startswith(row["reasoning"])
            assert row["messages"][-1]["content"].endswith(f"\\boxed{{{row['answer']}}}.")
    list(read_records(out / "pairs.jsonl", "pair"))


def test_problem_and_reasoning_stay_together(whole):
    """Answers arrive shuffled; every chain carries its problem's marker."""
    out, _, asked = whole
    order = [a.problem for a in asked]
    assert order != sorted(order, key=order.index)  # lives really interleave
    for row in rows(out, "sft") + rows(out, "sft_cr"):
        assert row["reasoning"].startswith(f"chain{row['id'][1:]}") and f"{row['id'][1:]} plus" in row["problem"]
    for row in rows(out, "pairs"):
        for side in ("chosen", "rejected"):
            assert row[side][0]["content"].startswith(f"chain{row['problem_id'][1:]}")
        assert f"{row['problem_id'][1:]} plus" in row["prompt"][0]["content"]


def test_pairs_follow_the_mini_tasks(whole):
    out, _, _ = whole
    by_problem = {}
    for row in rows(out, "pairs"):
        by_problem.setdefault(row["problem_id"], {})[row["gap"]] = row
    seen = set()
    for trace in rows(out, "traces"):
        gaps = set(by_problem.get(trace["id"], ()))
        if trace["outcome"] != "kept":
            assert not gaps
        elif trace["level"] == "medium":
            assert gaps == ({"large"} if trace["incorrect"] else set())
        else:
            assert gaps == ({"small", "medium", "large"} if trace["incorrect"] else {"small"})
        seen.add((trace["outcome"], trace["level"], bool(trace["incorrect"])))
        if trace["incorrect"]:  # really wrong
            assert not trace["incorrect"].endswith(f"= {trace['answer']}")
    assert {("kept", level, True) for level in ("easy", "medium", "hard")} <= seen


def test_subsets_for_the_studies(whole):
    out, _, _ = whole
    traces = {t["id"]: t for t in rows(out, "traces")}
    for level in ("easy", "medium", "hard"):
        subset = rows(out, f"sft_{level}")
        assert [r["id"] for r in subset] == [i for i, t in traces.items() if t["level"] == level]
        assert all(r["reasoning"] == traces[r["id"]]["reasoning"] for r in subset)
    assert len(rows(out, "sft_original")) == 60
    assert [r["id"] for r in rows(out, "sft_c")] == [r["id"] for r in rows(out, "sft_medium")]
    unverified = {r["id"]: r for r in rows(out, "sft_cr") if r["origin"] != "med"}
    firsts = {
        i: next((s["text"] for s in t["steps"] if s["step"] == "rethinker" and s["mode"] == t["level"]), None)
        for i, t in traces.items()
        if t["level"] in ("easy", "hard")
    }
    assert {i: r["reasoning"] for i, r in unverified.items()} == {i: text for i, text in firsts.items() if text}
    assert {traces[i]["outcome"] for i in unverified} > {"kept"}  # also those that verification discards


def test_every_call_is_in_the_journal_and_in_a_trace(whole):
    out, _, asked = whole
    journal = {entry["key"]: entry for entry in rows(out, "journal")}
    calls = [call["key"] for trace in rows(out, "traces") for step in trace["steps"] for call in step["calls"]]
    assert sorted(calls) == sorted(journal) and len(calls) == len(asked)
    needed = {
        "agent",
        "model",
        "prompt_hash",
        "sampling",
        "seed",
        "text",
        "prompt_tokens",
        "seconds",
        "attempt",
        "round",
    }
    assert all(needed <= set(entry) for entry in journal.values())


def test_the_order_of_completion_changes_nothing(whole, tmp_path):
    out, problems, _ = whole
    with Server(slowly) as server:
        done = run(problems, tmp_path / "out", server.url, "endpoints.teacher.concurrency=50")
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "out") == contents(out)


# --- switches of the output ---


@pytest.mark.parametrize(
    ("words", "sft", "incorrect"),
    [
        (
            ["response_style=think", "rejected_answer=from_reasoning"],
            "<think>\nlonger = 2\n</think>\n\nThe final answer is \\boxed{2}.",
            "<think>\nOops, = 7\n</think>\n\nThe final answer is \\boxed{7}.",
        ),
        (
            ["response_style=bespoke", "rejected_answer=gold"],
            "<|begin_of_thought|>\n\nlonger = 2\n\n<|end_of_thought|>\n\n"
            "<|begin_of_solution|>\n\nThe final answer is \\boxed{2}.\n\n<|end_of_solution|>",
            "<|begin_of_thought|>\n\nOops, = 7\n\n<|end_of_thought|>\n\n"
            "<|begin_of_solution|>\n\nThe final answer is \\boxed{2}.\n\n<|end_of_solution|>",
        ),
        (["rejected_answer=none"], "longer = 2\n\nThe final answer is \\boxed{2}.", "Oops, = 7"),
    ],
)
def test_response_styles(tmp_path, words, sft, incorrect):
    problems = write_problems(tmp_path / "problems.jsonl", 2)
    with Server(fixed) as server:
        done = run(problems, tmp_path / "out", server.url, *words, "system=Be brief.", "instruction='Solve: {problem}'")
    assert done.returncode == 0, done.stderr
    first = rows(tmp_path / "out", "sft")[0]
    prompt = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Solve: What is 1 plus 1?"}]
    assert first["messages"] == [*prompt, {"role": "assistant", "content": sft}]
    small, medium, large = (row for row in rows(tmp_path / "out", "pairs") if row["problem_id"] == "p1")
    assert small["prompt"] == prompt and small["chosen"] == large["chosen"] == first["messages"][2:]
    assert medium["rejected"] == large["rejected"] == [{"role": "assistant", "content": incorrect}]
    assert medium["chosen"] == small["rejected"]
    text = (tmp_path / "out/pairs.jsonl").read_text()
    assert len({json.dumps(row[side]) for row in (small, medium, large) for side in ("chosen", "rejected")}) == 3, text


def test_level_size_draws_equally_many(whole, tmp_path):
    out, problems, _ = whole
    with Server(slowly) as server:
        words = (f"journal={out / 'journal.jsonl'}", "level_size=min")
        assert run(problems, tmp_path / "out", server.url, *words).returncode == 0
    full = {level: [r["id"] for r in rows(out, f"sft_{level}")] for level in ("easy", "medium", "hard")}
    drawn = {level: [r["id"] for r in rows(tmp_path / "out", f"sft_{level}")] for level in full}
    smallest = min(map(len, full.values()))
    for level, ids in drawn.items():
        assert len(ids) == smallest and [i for i in full[level] if i in set(ids)] == ids


def test_agents_may_sit_on_different_endpoints(tmp_path):
    problems = write_problems(tmp_path / "problems.jsonl", 3)
    with Server(fixed) as large, Server(fixed) as small:
        words = (f"endpoints.small.base_url={small.url}", "endpoints.small.model=base", "agents.verifier=small")
        assert run(problems, tmp_path / "out", large.url, *words).returncode == 0
    assert {a.role for a in small.asked} == {"verifier"} and {a.body["model"] for a in small.asked} == {"base"}
    assert {a.role for a in large.asked} == {"critic", "easy", "incorrect"}


def test_the_key_is_in_no_file_and_no_line(tmp_path):
    problems = write_problems(tmp_path / "problems.jsonl", 3)

    def answer(asked):
        if asked.headers["Authorization"] != "Bearer sk-very-secret":
            return error(401, "no")
        return error(500, "bad sk-very-secret") if asked.role == "incorrect" else fixed(asked)

    env = os.environ | {"MY_KEY": "sk-very-secret"}
    with Server(answer) as server:
        done = run(problems, tmp_path / "out", server.url, "endpoints.teacher.api_key_env=MY_KEY", env=env)
    written = "".join(path.read_text() for path in (tmp_path / "out").iterdir())
    assert "sk-very-secret" not in done.stderr + done.stdout + written


@pytest.mark.parametrize("name", ["pocket/crv", "paper/crv_bespoke", "paper/crv_openthoughts", "paper/crv_table1"])
def test_configs_are_complete(name):
    cfg = load(build_crv.Config, ["--config", str(ROOT / f"configs/{name}.yaml")])
    build_crv.check_config(cfg)
    sampling = cfg.sampling
    assert (sampling.temperature, sampling.top_p, sampling.top_k) == (0.7, 0.9, 50)  # A.2
    assert cfg.votes == (3 if name == "paper/crv_table1" else 1)


def test_the_folder_of_another_configuration(whole):
    out, problems, _ = whole
    done = run(problems, out, "http://127.0.0.1:9/v1", "max_rounds=2")
    check_refused(done, r"holds the results of another configuration \(max_rounds: 3 there, 2 now\)")
    notes = out.parent / "notes"
    notes.mkdir()
    (notes / "mine.txt").write_text("mine")
    check_refused(run(problems, notes, "http://127.0.0.1:9/v1"), r"is not empty and was not made by this script")
