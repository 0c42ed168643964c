"""Runs against a server that fails in every way at once: nothing is lost, nothing is counted twice."""

import asyncio
import hashlib
import json
import os
import random
import subprocess
import time
from collections import Counter

import pytest
from aiohttp import web

from tests.support.crv_cli import ROOT, command, run, write_problems
from tests.support.moody_server import contents, fixed, moody, rows, slowly, undisturbed, wait_for
from tests.support.scripted_endpoint import RESET, Server, error, reply

PASSING = ("429", "500", "reset", "hang", "half")  # the same question is answered the next time
LASTING = ("null", "length", "gibberish", "context")  # properties of the question: never the answer it had
SHORT = (
    "endpoints.teacher.timeout=0.25",
    "constant.client.TOKENS_PER_SECOND=1000000",
    "endpoints.teacher.retries=8",
    "endpoints.teacher.concurrency=16",
)


def drawn(kinds, *what):
    """One of the kinds with 5 % chance each, or None; a function of `what`."""
    dice = int.from_bytes(hashlib.sha256(repr(what).encode()).digest()[:6]) / 2**48
    return kinds[int(dice * 20)] if dice * 20 < len(kinds) else None


class Faulty:
    """The moody server's answers, behind 5 % of each fault; touched: the problems that a lasting one met."""

    def __init__(self, lasting=LASTING):
        self.lasting, self.faults, self.touched = lasting, Counter(), set()

    async def __call__(self, asked):
        name = f"p{asked.problem.split()[2]}"
        kind = drawn(PASSING, asked.role, asked.problem, asked.reasoning, asked.seed, asked.tries)
        if kind is None:
            kind = drawn(self.lasting, asked.role, asked.problem, asked.reasoning, asked.seed)
            if kind == "gibberish" and asked.role not in ("critic", "verifier"):
                kind = None
            if kind:
                self.touched.add(name)
        self.faults[kind] += 1
        if kind == "hang":
            await asyncio.sleep(20)
        return {
            "429": lambda: error(429, "slow down", {"Retry-After": "0.1"}),
            "500": lambda: error(500, "out of memory"),
            "reset": lambda: RESET,
            "half": lambda: web.Response(text='{"choices": [{"mess', content_type="application/json"),
            "null": lambda: reply(None),
            "length": lambda: reply("<think>so the user", "length"),
            "gibberish": lambda: "Banana bread!",
            "context": lambda: error(400, "maximum context length is 4096 tokens, your messages have 9000"),
        }.get(kind, lambda: moody(asked))()  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An undisturbed run over 60 problems: (folder, problems file, requests it took)."""
    out, problems, asked = undisturbed(tmp_path_factory.mktemp("whole"))
    return out, problems, len(asked)


def test_five_percent_of_every_fault(whole, tmp_path):
    out, problems, _ = whole
    faulty = Faulty()
    with Server(faulty) as server:
        done = run(problems, tmp_path / "out", server.url, *SHORT)
    assert done.returncode == 0, done.stderr
    assert all(faulty.faults[kind] for kind in PASSING + LASTING), faulty.faults
    kept, rejected = ([row["id"] for row in rows(tmp_path / "out", name)] for name in ("sft", "rejected"))
    assert sorted(kept + rejected) == sorted(f"p{n}" for n in range(1, 61))
    assert all(row["reason"] for row in rows(tmp_path / "out", "rejected"))
    assert "critic_too_long" in {row["reason"] for row in rows(tmp_path / "out", "rejected")}
    calm = {trace["id"]: trace for trace in rows(out, "traces")}
    same = [trace for trace in rows(tmp_path / "out", "traces") if trace["id"] not in faulty.touched]
    assert len(same) > 10 and all(trace == calm[trace["id"]] for trace in same)


def test_passing_faults_leave_no_mark_at_all(whole, tmp_path):
    out, problems, asked = whole
    with Server(Faulty(lasting=())) as server:
        done = run(problems, tmp_path / "out", server.url, *SHORT)
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "out") == contents(out) and len(server.asked) > asked


def test_a_server_that_is_gone_for_a_while(whole, tmp_path):
    """Ten pauses long, as 30 s are with the defaults; then everything is as if it had never happened."""
    out, problems, asked = whole
    words = ("constant.limits.FIRST_PAUSE=0.05", "constant.limits.LONGEST_PAUSE=0.25", "endpoints.teacher.retries=12")
    with Server(slowly) as server:
        process = subprocess.Popen(
            command(problems, tmp_path / "out", server.url, *words), cwd=ROOT, stderr=subprocess.PIPE, text=True
        )
        wait_for(server, 80, process)
        server.down()
        time.sleep(1)
        server.up()
        assert process.wait(timeout=60) == 0, process.stderr.read()
        process.stderr.close()
    assert contents(tmp_path / "out") == contents(out)
    assert len(server.asked) - asked <= 8  # in flight when it went


@pytest.mark.slow
def test_killed_ten_times_at_random(whole, tmp_path):
    out, problems, asked = whole
    dice, kills = random.Random(7), 10
    with Server(slowly) as server:
        for _ in range(kills):
            process = subprocess.Popen(
                command(problems, tmp_path / "out", server.url),
                cwd=ROOT,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            wait_for(server, len(server.asked) + dice.randrange(1, 20), process)
            time.sleep(dice.random() * 0.05)
            process.kill()
            process.wait()
        done = run(problems, tmp_path / "out", server.url)
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "out") == contents(out)
    assert len(server.asked) - asked <= kills * 8  # what was in flight, at most


def test_a_cost_cap_stops_cleanly_and_a_higher_one_goes_on(whole, tmp_path):
    """A call costs (11 + 7) tokens at 1,000,000 a million: 18."""
    out, problems, asked = whole
    prices = ("endpoints.teacher.price_prompt=1000000", "endpoints.teacher.price_completion=1000000")
    with Server(slowly) as server:
        done = run(problems, tmp_path / "out", server.url, *prices, "max_cost=1800")
        assert done.returncode == 2 and "Traceback" not in done.stderr
        assert "max_cost 1800 is reached: 1800 spent on 100 calls" in done.stderr.splitlines()[-1]
        assert len(server.asked) == 100 == len(rows(tmp_path / "out", "journal"))
        done = run(problems, tmp_path / "out", server.url, *prices, "max_cost=1800")
        assert done.returncode == 2 and len(server.asked) == 100
        assert run(problems, tmp_path / "out", server.url, *prices, "max_cost=1e9").returncode == 0
    assert len(server.asked) == asked  # nothing was paid for twice
    paid, free = contents(tmp_path / "out"), contents(out)
    assert b'"critic": 2862.0' in paid.pop("report") and b'"cost": {}' in free.pop("report")
    assert paid == free


def test_cached_tokens_are_counted_and_have_their_price(tmp_path):
    """11 prompt tokens of which 8 come from a cache, and 7 of answer: 3 · 10 + 8 · 1 + 7 · 100, in millionths."""
    problems = write_problems(tmp_path / "p.jsonl", 6)
    prices = ("price_prompt=10", "price_cached=1", "price_completion=100")
    words = [f"endpoints.teacher.{price}" for price in prices]

    def answer(asked):
        said = reply(fixed(asked))
        said["usage"]["prompt_tokens_details"] = {"cached_tokens": 8}
        return said

    with Server(answer) as server:
        done = run(problems, tmp_path / "out", server.url, *words, "max_cost=0.00741")
        assert "max_cost 0.00741 is reached: 0.00738 spent on 10 calls" in done.stderr, done.stderr
        assert len(server.asked) == 10  # at the full price it would be 9
        assert run(problems, tmp_path / "out", server.url, *words, "max_cost=1").returncode == 0
    keys = [line["key"] for line in rows(tmp_path / "out", "journal")]
    assert len(set(keys)) == len(keys) == len(server.asked), "kept answers are resumed"
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert sum(report["cost"].values()) == pytest.approx(len(server.asked) * 738e-6)
    assert sum(calls["cached_tokens"] for calls in report["calls"].values()) == 8 * len(server.asked)
    assert all(line["cached_tokens"] == 8 for line in rows(tmp_path / "out", "journal"))
    assert "of them cached" in (tmp_path / "out/report.html").read_text()


def test_a_run_that_was_killed_before_its_first_answer_holds_no_folder(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/config.yaml").write_text("seed: 5\nproblems: p\nout: out\nendpoints: {}\n")
    (tmp_path / "out/journal.jsonl").write_text('{"key": "of a first answer, ki')
    with Server(moody) as server:
        done = run(write_problems(tmp_path / "p.jsonl", 2), tmp_path / "out", server.url)
    assert done.returncode == 0, done.stderr


def test_the_key_is_nowhere_whatever_fails(tmp_path):
    """A server that puts the key into every kind of error, and then takes it back."""
    problems, secret = write_problems(tmp_path / "problems.jsonl", 20), "sk-very-secret"
    leaks = (
        lambda: error(400, f"bad {secret}"),
        lambda: error(500, f"bad {secret}", code=secret),
        lambda: web.Response(text=f"<html>{secret}</html>", status=502),
        lambda: web.Response(text=secret),
        lambda: web.json_response({"error": secret, "choices": []}),
        lambda: error(429, f"{secret} is too fast", {"Retry-After": "0.05"}),
    )

    def answer(asked):
        kind = drawn(range(len(leaks)), asked.problem, asked.role, asked.tries)
        return moody(asked) if kind is None else leaks[kind]()

    env, words = (
        os.environ | {"MY_KEY": secret},
        ("endpoints.teacher.api_key_env=MY_KEY", "endpoints.teacher.retries=8"),
    )
    with Server(answer) as server:
        runs = [run(problems, tmp_path / "out", server.url, *words, env=env)]
        server.answer = lambda asked: error(401, f"{secret} was revoked")
        runs += [run(problems, tmp_path / "new", server.url, *words, env=env)]
    assert [done.returncode for done in runs] == [0, 2] and "*** was revoked" in runs[1].stderr
    assert "bad ***" in (tmp_path / "out/journal.jsonl").read_text()
    written = [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) > 10 and secret not in "".join(written + [done.stdout + done.stderr for done in runs])
