"""Several endpoints at once, and the limits that hold requests back."""

import asyncio
import time

import pytest

from agents.client import Endpoint
from agents.limits import AdaptiveLimit, Budget, EndpointConfig, RateLimit
from agents.pool import Pool, open_endpoints, run_together
from agents.prompts import load_prompts, question
from errors import UserError
from tests.support.scripted_endpoint import RESET, Server, error, reply


def body(n=0):
    return {"model": "m", "messages": question(load_prompts()["critic"], f"problem {n}", "1", "chain"), "max_tokens": 9}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr("agents.limits.FIRST_PAUSE", 0.02)
    monkeypatch.setattr("agents.limits.LONGEST_PAUSE", 0.2)


def ask(servers, count, use=None, has_answered=False, **settings):
    """`count` questions at once through a Pool of these servers. Returns (replies or exceptions, endpoints)."""
    settings = {"timeout": 20, "retries": 8} | settings

    async def run():
        cfgs = [EndpointConfig(getattr(server, "url", server), "m", **settings) for server in servers]
        pool = Pool([Endpoint(f"e{n}", cfg, has_answered=has_answered) for n, cfg in enumerate(cfgs)])
        try:
            if use:
                return await use(pool), pool.endpoints
            return await asyncio.gather(
                *map(pool.chat, map(body, range(count))), return_exceptions=True
            ), pool.endpoints
        finally:
            await pool.close()

    return asyncio.run(run())


async def soon(asked):
    await asyncio.sleep(0.05)
    return "easy"


# --- balancing and failing over ---


def test_the_least_busy_endpoint_is_asked():
    async def slow(asked):
        await asyncio.sleep(0.5)
        return "hard"

    with Server(soon) as quick, Server(slow) as lame:
        replies, _ = ask([quick, lame], 60, concurrency=6)
    assert {r.status for r in replies} == {"ok"} and {r.endpoint for r in replies} == {"e0", "e1"}
    assert len(quick.asked) > 3 * len(lame.asked) > 0  # ten times as fast; the same number in flight


def test_questions_move_over_from_an_endpoint_that_dies_and_return_when_it_is_back(capsys):
    async def use(pool):
        first = asyncio.gather(*map(pool.chat, map(body, range(40))))
        await asyncio.sleep(0.1)
        await asyncio.to_thread(dies.down)
        replies = await first
        replies += await asyncio.gather(*map(pool.chat, map(body, range(40, 80))))
        served = len(dies.asked)
        await asyncio.to_thread(dies.up)
        await asyncio.sleep(0.3)  # longer than it is set aside
        for n in range(80, 120, 8):
            replies += await asyncio.gather(*map(pool.chat, map(body, range(n, n + 8))))
        return replies, len(dies.asked) - served

    with Server(soon) as stays, Server(soon) as dies:
        (replies, later), _ = ask([stays, dies], 0, use, concurrency=4)
    assert [r.status for r in replies] == ["ok"] * 120
    assert later > 4  # not only the trial question
    said = capsys.readouterr().err
    assert said.count("is set aside") == 1 == said.count("answers again") and dies.url in said


def test_a_hanging_endpoint_gets_one_question_at_a_time(monkeypatch):
    monkeypatch.setattr("agents.client.TOKENS_PER_SECOND", 1000)

    async def hangs(asked):
        await asyncio.sleep(30)

    with Server(soon) as well, Server(hangs) as ill:
        replies, _ = ask([well, ill], 150, concurrency=8, timeout=0.4)
    assert {r.status for r in replies} == {"ok"} and {r.endpoint for r in replies} == {"e0"}
    assert 8 <= len(ill.asked) <= 12


def test_only_when_none_is_left_does_the_run_stop():
    with Server(lambda asked: RESET) as one, Server(lambda asked: error(500, "out of memory")) as two:
        replies, _ = ask([one, two], 8, retries=3)
        assert all(isinstance(r, UserError) and one.url in str(r) and two.url in str(r) for r in replies)


def test_an_endpoint_with_a_wrong_key_is_left_out(capsys, monkeypatch):
    monkeypatch.setattr("agents.client.LOCKED_OUT", 0)  # seconds; else it is set aside first, and left out later
    with Server(lambda asked: error(401, "who are you?")) as locked, Server(soon) as open_one:
        replies, _ = ask([locked, open_one], 30, concurrency=4)
        assert {r.status for r in replies} == {"ok"} and len(locked.asked) <= 4
        assert capsys.readouterr().err.count("who are you?") == 1
        open_one.answer = lambda asked: error(402, "no credit")
        replies, _ = ask([locked, open_one], 30, concurrency=4)  # more questions than places: nobody is left waiting
    assert all(isinstance(r, UserError) for r in replies)
    assert "who are you?" in str(replies[0]) and "no credit" in str(replies[0])


@pytest.mark.parametrize("words", ["Unrecognized argument: top_k", "maximum context length is 4096 tokens"])
def test_what_one_server_refuses_another_must_refuse_too(capsys, monkeypatch, words):
    """Answering 400 is fast: without a second opinion the wrong server would get nearly all questions."""

    async def use(pool):
        return [
            reply
            for n in range(0, 80, 8)
            for reply in await asyncio.gather(*map(pool.chat, map(body, range(n, n + 8))))
        ]

    monkeypatch.setattr("agents.limits.FIRST_PAUSE", 1)
    monkeypatch.setattr("agents.limits.LONGEST_PAUSE", 60)
    for has_answered in (False, True):
        with Server(soon) as good, Server(lambda asked: error(400, words)) as wrong:
            replies, endpoints = ask([good, wrong], 0, use, has_answered, concurrency=4)
        assert [(r.status, r.endpoint) for r in replies] == [("ok", "e0")] * 80
        Pool(endpoints).check_served()  # one that serves is enough
        assert len(wrong.asked) <= 16 and len(good.asked) == 80
    said = capsys.readouterr().err
    assert said.count("is set aside") == 2 and f"refuses what others answer: HTTP 400: {words}" in said


def test_what_two_servers_refuse_is_refused():
    def picky(asked):
        return error(400, "no") if asked.problem in ("problem 3", "problem 5") else "easy"

    with Server(picky) as one, Server(picky) as two:
        replies, _ = ask([one, two], 8, concurrency=1)
        assert [r.status for r in replies] == ["ok"] * 3 + ["refused", "ok", "refused"] + ["ok"] * 2
        assert len(one.asked) + len(two.asked) == 10
        one.answer = two.answer = lambda asked: error(400, "no")
        replies, endpoints = ask([one, two], 3)
        assert {r.status for r in replies} == {"refused"}
        with pytest.raises(UserError, match=f"{one.url}; .*{two.url} refused every request"):
            Pool(endpoints).check_served()


class NoJournal:
    models, tokens = (), {"b": (10, 1_000_000, 500_000)}


def test_agents_share_endpoints_by_name(monkeypatch):
    async def run():
        configs = {
            "a": EndpointConfig(["http://h1/v1", "http://h2/v1"], "m"),
            "b": EndpointConfig("http://h3/v1", "m", price_prompt=2, price_completion=6),
            "c": EndpointConfig("http://h4/v1", "other"),
        }
        bindings = {"critic": ["a", "b"], "rethinker": ["a", "b"], "verifier": ["b"]}
        endpoints, pools = open_endpoints(configs, bindings, NoJournal)
        assert [e.url for e in endpoints] == ["http://h1/v1", "http://h2/v1", "http://h3/v1"]
        assert pools["critic"] is pools["rethinker"] and pools["critic"].endpoints == endpoints
        assert pools["verifier"].endpoints == endpoints[2:]
        assert pools["critic"].budget is pools["verifier"].budget and pools["critic"].budget.spent == 2 + 3
        with pytest.raises(UserError, match=r"agents\.critic is bound to a, c, which differ in model"):
            open_endpoints(configs, {"critic": ["a", "c"]}, NoJournal)
        for endpoint in endpoints:
            await endpoint.close()

    asyncio.run(run())


def test_one_question_waits_for_a_server_that_is_not_known_yet():
    """The others go where there is an answer."""

    async def never(asked):
        await asyncio.sleep(30)

    async def use(pool):
        async def prober(endpoint, body):
            await endpoint.send(body, lambda completion, seconds: None)

        pool.endpoints[1].prober = prober
        first = asyncio.create_task(pool.chat(body(0)))
        return [*await asyncio.gather(*map(pool.chat, map(body, range(1, 40)))), await first]

    with Server(soon) as well, Server(never) as ill:
        replies, _ = ask([well, ill], 0, use, concurrency=8, timeout=2)
    assert {(r.status, r.endpoint) for r in replies} == {("ok", "e0")} and len(ill.asked) <= 3


def test_an_error_loses_no_answer_in_flight(capsys):
    """The first error begins nothing new, and waits for what the others have begun."""

    async def answer(asked):
        await asyncio.sleep(0.1 if asked.problem == "problem 0" else 0.5)
        return "easy"

    kept = []

    async def use(pool):
        async def worker(n):
            for again in range(3):
                kept.append((await pool.chat(body(n + 100 * again))).text)
                if n == 0:
                    raise UserError("the disk is full")

        with pytest.raises(UserError, match="the disk is full"):
            await run_together([worker(n) for n in range(6)], [pool])

    with Server(answer) as server:
        ask([server], 0, use, concurrency=8)
    assert kept == ["easy"] * 6 == ["easy"] * len(server.asked)
    assert "5 questions in flight are waited for" in capsys.readouterr().err


# --- how many at a time ---


def test_one_cut_an_episode_and_additive_growth():
    it = AdaptiveLimit(100)
    for _ in range(100):
        it.enter()
    for _ in range(60):
        it.congested(0)
    assert it.limit == 70 and not it.free
    for _ in range(40):
        it.leave()
    it.enter()
    it.congested(1)  # sent after the cut: a new episode
    assert it.limit == pytest.approx(0.7 * 61)
    before = it.limit
    for _ in range(int(before)):  # as many answers as there are places: about one round trip
        it.answered()
    assert 4 < it.limit - before < 6
    for _ in range(10_000):
        it.answered()
    assert it.limit == 100
    for _ in range(61):
        it.leave()
    it.congested(2)
    assert it.limit == 1


def test_concurrency_settles_at_what_the_server_bears():
    """429 above 10 in flight: nearly all of 400 questions are answered at the first try."""
    now, refused = [0], [0]

    async def answer(asked):
        now[0] += 1
        try:
            if now[0] > 10:
                refused[0] += 1
                return error(429)
            await asyncio.sleep(0.02)
            return "easy"
        finally:
            now[0] -= 1

    with Server(answer) as server:
        replies, (endpoint,) = ask([server], 400, concurrency=64)
    assert [r.status for r in replies] == ["ok"] * 400
    assert endpoint.limit.limit < 30 and refused[0] < 250  # 64 at once and never fewer: over a thousand


# --- how many a minute, and how much ---


def test_requests_and_tokens_a_minute_are_capped():
    with Server(lambda asked: reply("easy", prompt_tokens=50, completion_tokens=50)) as server:
        begin = time.monotonic()
        ask([server], 12, requests_per_minute=600)
        assert time.monotonic() - begin >= 1.1  # 11 gaps of 0.1 s
        begin = time.monotonic()
        ask([server], 6, tokens_per_minute=12_000, concurrency=1)
        assert 2.0 <= time.monotonic() - begin < 6.0  # 500 ms an answer; by the guess before it, nearly 2 s each
    begin = time.monotonic()
    asyncio.run(RateLimit(None).take(10**9))
    assert time.monotonic() - begin < 1


def test_the_budget_stops_before_it_is_overdrawn_and_waits_for_what_is_in_flight():
    async def run():
        budget, answered = Budget(cap=10.0), []

        async def call():
            await budget.admit()
            await asyncio.sleep(0.01)
            answered.append(1.0)
            budget.settle(1.0)

        await call()
        with pytest.raises(ExceptionGroup) as caught:  # as in agents/crv.py: the first error ends the other tasks
            async with asyncio.TaskGroup() as group:
                for _ in range(30):
                    group.create_task(call())
        stopped = caught.value.exceptions
        assert budget.spent == len(answered) == 10 and all(isinstance(error, UserError) for error in stopped)
        assert "max_cost 10 is reached" in str(stopped[0]) and "higher max_cost" in str(stopped[0])

    asyncio.run(run())


def test_a_resumed_budget_reckons_with_the_mean_of_calls_that_cost():
    class Journal:
        models, tokens = {"m"}, {"paid": (10, 0, 10**6), "own": (990, 0, 10**6)}

    async def run():
        paid = EndpointConfig("http://localhost:1/v1", "m", price_completion=5.0)
        configs = {"paid": paid, "own": EndpointConfig("http://localhost:2/v1", "m")}
        endpoints, pools = open_endpoints(configs, {"critic": ["paid"], "verifier": ["own"]}, Journal, max_cost=5.4)
        with pytest.raises(UserError, match="5 spent on 10 calls"):  # one more would likely cost 0.5
            await pools["critic"].budget.admit()
        for endpoint in endpoints:
            await endpoint.close()

    asyncio.run(run())
