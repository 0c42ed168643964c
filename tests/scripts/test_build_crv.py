"""`python build_crv.py` as a whole, through its command line, against a real server."""

import asyncio
import hashlib
import json
import os
import random
import re
import resource
import signal
import subprocess
import threading
import time

import pytest

import build_crv
from agents.journal import Journal
from agents.outputs import write_outputs
from config import load
from data import records
from data.records import read_records
from data.rows import iter_rows
from errors import UserError
from tests.support.crv_cli import ROOT, check_refused, command, run, write_problems
from tests.support.scripted_endpoint import Server, error, reply

OUTPUTS = (
    "sft",
    "pairs",
    "traces",
    "rejected",
    "sft_original",
    "sft_c",
    "sft_cr",
    "sft_easy",
    "sft_medium",
    "sft_hard",
)


def moody(asked):
    """A server with every habit, each a function of the request alone: levels, refusals to rate, thoughts, lost
    answers, corruptions that stay right, truncation."""
    text = f"{asked.role}|{asked.problem}|{asked.reasoning}|{asked.seed}"
    dice = random.Random(hashlib.sha256(text.encode()).digest())
    marker, answer = re.search(r"chain\d+", asked.reasoning).group(), int(asked.answer)
    if dice.random() < 0.08:
        return reply("<think>so the user wants", "length")
    if asked.role == "critic":
        label = dice.choice(["easy", "medium", "medium", "hard"])
        return dice.choice([label, f"<think>is it hard?</think>My rating: {label}", "It may be easy or hard."])
    if asked.role == "verifier":
        return dice.choice(["YES", "YES", "<think>NO?</think>\nYES", "NO"])
    if asked.role == "incorrect":
        return f"{marker} gone wrong {dice.random():.3f} = {dice.choice([answer, answer + 1, answer + 2])}"
    return f"{marker} {asked.role} {dice.random():.3f} = {dice.choice([answer] * 4 + [answer + 1])}"


async def slowly(asked):
    await asyncio.sleep(random.random() * 0.03)
    return moody(asked)


def wait_for(server, count, process):
    """Until the server has been asked so often by a process that is still at work."""
    deadline = time.monotonic() + 60
    while len(server.asked) < count:
        assert process.poll() is None and time.monotonic() < deadline, "the run ended before it could be interrupted"
        time.sleep(0.01)


def contents(out):
    return {name: (out / f"{name}.jsonl").read_bytes() for name in OUTPUTS} | {
        "report": (out / "report.json").read_bytes()
    }


def rows(out, name):
    return [json.loads(line) for line in (out / f"{name}.jsonl").read_text().splitlines()]


def undisturbed(folder):
    """One uninterrupted run over 60 problems: (folder, its problems file, the requests it took)."""
    problems = write_problems(folder / "problems.jsonl", 60)
    with Server(slowly) as server:
        done = run(problems, folder / "out", server.url)
    assert done.returncode == 0, done.stderr
    return folder / "out", problems, server.asked


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return undisturbed(tmp_path_factory.mktemp("whole"))


# --- what comes out ---


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


# --- stopped and resumed ---


def test_killed_and_resumed_is_as_never_killed(whole, tmp_path):
    out, problems, asked = whole
    with Server(slowly) as server:
        for _ in range(3):
            before = len(server.asked)
            process = subprocess.Popen(
                command(problems, tmp_path / "out", server.url),
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
            wait_for(server, before + 50, process)
            process.kill()
            process.wait()
            process.stdout.close()
        done = run(problems, tmp_path / "out", server.url)
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "out") == contents(out)
    assert 0 < len(server.asked) - len(asked) <= 3 * 8  # at most what was in flight at each kill
    assert max(server.seen.values()) <= 4
    again = run(problems, tmp_path / "out", "http://127.0.0.1:9/v1")  # nobody there, and nobody needed
    assert again.returncode == 0 and contents(tmp_path / "out") == contents(out)


def test_ctrl_c_says_how_to_go_on(whole, tmp_path):
    out, problems, _ = whole
    with Server(slowly) as server:
        process = subprocess.Popen(
            command(problems, tmp_path / "out", server.url), cwd=ROOT, stderr=subprocess.PIPE, text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background shell leaves it ignored
        )  # fmt: skip
        wait_for(server, 60, process)
        process.send_signal(signal.SIGINT)
        stderr = process.communicate(timeout=30)[1]
        assert process.returncode == 130 and "run the same command again" in stderr and "Traceback" not in stderr
        assert run(problems, tmp_path / "out", server.url).returncode == 0
    assert contents(tmp_path / "out") == contents(out)


def test_an_endpoint_that_dies_is_named_and_what_is_done_is_kept(whole, tmp_path):
    out, problems, asked = whole
    with Server(slowly) as server:
        process = subprocess.Popen(
            command(problems, tmp_path / "out", server.url), cwd=ROOT, stderr=subprocess.PIPE, text=True
        )
        wait_for(server, 100, process)
    stderr = process.communicate(timeout=60)[1]
    assert process.returncode == 2 and server.url in stderr and "Traceback" not in stderr
    assert len([line for line in stderr.splitlines() if line.startswith("error:")]) == 1
    with Server(slowly) as other:  # the address may change, the answers stay
        assert run(problems, tmp_path / "out", other.url).returncode == 0
    assert contents(tmp_path / "out") == contents(out)
    assert len(other.asked) <= len(asked) - 100 + 8


def test_what_only_the_transport_failed_is_asked_for_again(whole, tmp_path):
    out, problems, _ = whole
    with Server(lambda a: error(500, "crashed") if a.problem == "What is 3 plus 3?" else moody(a)) as server:
        done = run(problems, tmp_path / "out", server.url)
    assert done.returncode == 0 and "1 critic_transport (the same command asks for these again)" in done.stderr
    lost = next(row for row in rows(tmp_path / "out", "rejected") if row["id"] == "p3")
    assert (lost["outcome"], lost["reason"]) == ("quarantined", "critic_transport")
    with Server(moody) as server:
        assert run(problems, tmp_path / "out", server.url).returncode == 0
    assert contents(tmp_path / "out") == contents(out)
    assert {a.problem for a in server.asked} == {"What is 3 plus 3?"}


def test_a_full_disk_stops_the_run_and_loses_nothing(whole, tmp_path):
    out, problems, _ = whole
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))  # noqa: E731
    with Server(moody) as server:
        done = run(problems, tmp_path / "out", server.url, preexec_fn=limit)
        assert done.returncode == 2 and "cannot write" in done.stderr and "Traceback" not in done.stderr
        assert run(problems, tmp_path / "out", server.url).returncode == 0
    assert contents(tmp_path / "out") == contents(out)


def test_a_second_run_on_the_same_folder_is_refused(tmp_path):
    problems, gate = write_problems(tmp_path / "problems.jsonl", 2), threading.Event()

    async def answer(asked):
        while not gate.is_set():
            await asyncio.sleep(0.01)
        return fixed(asked)

    with Server(answer) as server:
        first = subprocess.Popen(command(problems, tmp_path / "out", server.url), cwd=ROOT, stderr=subprocess.DEVNULL)
        wait_for(server, 1, first)
        claimed = (tmp_path / "out/config.yaml").read_text()
        for words in ((), ("seed=5", f"journal={tmp_path}/other.jsonl")):
            check_refused(run(problems, tmp_path / "out", server.url, *words), "in use by another run")
        assert (tmp_path / "out/config.yaml").read_text() == claimed, "whoever is refused writes nothing"
        gate.set()
        assert first.wait(timeout=60) == 0


def test_the_lock_is_held_until_the_outputs_are_there(tmp_path, monkeypatch):
    problems, out, met = write_problems(tmp_path / "problems.jsonl", 5), tmp_path / "out", []

    def while_written(*args):
        with pytest.raises(UserError, match="in use by another run"):
            Journal(out / "journal.jsonl")
        met.append((out / "report.json").exists())  # of the run before: this one is not finished
        return write_outputs(*args)

    monkeypatch.setattr(build_crv, "write_outputs", while_written)
    with Server(fixed) as server:
        for _ in range(2):
            build_crv.main(load(build_crv.Config, command(problems, out, server.url)[2:]))
            assert (out / "report.json").exists()
    assert met == [False, False]
    Journal(out / "journal.jsonl").close()


def test_no_more_of_the_problems_is_read_than_needed(tmp_path, monkeypatch):
    problems, out, passes = write_problems(tmp_path / "problems.jsonl", 50), tmp_path / "out", []

    def counted(path):
        passes.append(0)
        for row in iter_rows(path):
            passes[-1] += 1
            yield row

    for module in (build_crv, records):
        monkeypatch.setattr(module, "iter_rows", counted)
    with Server(fixed) as server:
        build_crv.main(load(build_crv.Config, command(problems, out, server.url, "limit=3")[2:]))
    assert passes == [50, 3]  # all of it is checked, and then asked about what is wanted
    assert [t["id"] for t in rows(out, "traces")] == ["p1", "p2", "p3"]


def test_problems_that_vanish_between_check_and_use_are_noticed(tmp_path, monkeypatch):
    problems, out = write_problems(tmp_path / "problems.jsonl", 30), tmp_path / "out"

    def shrinking(path):
        yield from iter_rows(path)
        write_problems(problems, 10)

    for module in (build_crv, records):
        monkeypatch.setattr(module, "iter_rows", shrinking)
    with Server(fixed) as server, pytest.raises(UserError, match=r"10 traces .* but there are 30.*Nothing is exported"):
        build_crv.main(load(build_crv.Config, command(problems, out, server.url)[2:]))
    assert not (out / "sft.jsonl").exists() and not (out / "report.json").exists()


def test_a_shared_journal_pays_for_an_ablation_once(whole, tmp_path):
    out, problems, _ = whole
    with Server(moody) as server:
        words = (f"journal={out / 'journal.jsonl'}", "stages=c")
        done = run(problems, tmp_path / "out", server.url, *words)
        assert done.returncode == 0, done.stderr
        verified = {t["id"] for t in rows(out, "traces") if t["outcome"] == "kept"}
        # only the incorrect chains of medium problems that verification had discarded are new
        assert {a.role for a in server.asked} == {"incorrect"}
        assert {f"p{a.problem.split()[2]}" for a in server.asked}.isdisjoint(verified)
    assert [r["id"] for r in rows(tmp_path / "out", "sft")] == [r["id"] for r in rows(out, "sft_c")]
    assert not (tmp_path / "out/sft_cr.jsonl").exists()


# --- switches of the output ---


def fixed(asked):
    if asked.role == "critic":
        return "easy" if asked.reasoning.startswith("chain1:") else "medium"
    answer = int(asked.answer)
    return {"verifier": "YES", "incorrect": f"Oops, = {answer + 5}"}.get(asked.role, f"longer = {answer}")


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
