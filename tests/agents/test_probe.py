"""The start-up probe against servers of many habits."""

import asyncio
import json
import random
import time

import pytest
from aiohttp import web

import build_crv
from agents.client import Endpoint
from agents.complaints import CallError
from agents.limits import EndpointConfig
from agents.probe import LONG, Prober, summary
from config import load
from errors import UserError
from tests.support.crv_cli import check_refused, command, run, write_problems
from tests.support.moody_server import fixed
from tests.support.scripted_endpoint import RESET, Server, error, reply

BODY = {"model": "m", "messages": [], "max_tokens": 9, "temperature": 0.7, "top_p": 0.9, "top_k": 50, "seed": 3}


def probe(tmp_path, answer, body=BODY, long=False, choice=False, **settings):
    """(what was found, the Endpoint, the server) for a server that answers probe questions with answer(asked)."""
    with Server(None, probe=answer) as server:

        async def ask():
            endpoint = Endpoint("teacher", EndpointConfig(server.url, "m", **settings))
            try:
                await Prober(tmp_path / "probe.json", long, choice)(endpoint, body)
                return endpoint
            finally:
                await endpoint.close()

        endpoint = asyncio.run(ask())
        found = json.loads((tmp_path / "probe.json").read_text())[f"{server.url} m"]
    return found, endpoint, server


def honest(asked):
    """A server that honours everything."""
    body, dice = asked.body, random.Random(str(asked.body))
    text = random.Random(1) if body.get("top_k") == 1 or body["temperature"] == 0 else dice
    text = "alpha" if "alpha" in asked.problem else str(text.random())
    return reply(text, prompt_tokens=len(asked.problem.split()) + 7)


def ignorant(asked):
    """One that answers 200 to every option and heeds none."""
    plain = {key: asked.body[key] for key in ("seed", "temperature") if key in asked.body}
    return "alpha" if "alpha" in asked.problem else str(random.Random(str(plain)).random())


def test_what_is_honoured_and_what_is_only_accepted(tmp_path):
    (tmp_path / "1").mkdir()
    found, endpoint, server = probe(tmp_path / "1", honest)
    assert found["top_k"] == "honoured"
    assert (found["thought"], endpoint.stream, endpoint.token_key) == ("none", False, "")
    assert len(server.probes) == 5 and all(asked.body["model"] == "m" for asked in server.probes)
    found, _, _ = probe(tmp_path, ignorant)
    assert found["top_k"] == "ignored"
    assert summary(found) == "no thoughts; top_k ignored"


@pytest.mark.parametrize("text", ['{"http://a/v1 m": ', '{"http://a/v1 m": 1}', "[" * 100_000])
def test_a_damaged_record_is_one_line(tmp_path, text):
    (tmp_path / "probe.json").write_text(text)
    with pytest.raises(UserError, match=r"probe\.json is damaged; delete it and run again"):
        Prober(tmp_path / "probe.json")


def test_a_server_that_always_says_the_same_tells_nothing_about_top_k(tmp_path):
    found, _, _ = probe(tmp_path, lambda asked: "alpha")
    assert found["top_k"] == "unknown"


@pytest.mark.parametrize(
    ("message", "where", "prefilled"),
    [
        (reply("alpha", reasoning="hm"), "reasoning", False),
        (reply("alpha", reasoning_content="hm"), "reasoning_content", False),
        (reply("<think>hm</think>alpha"), "inline", False),
        (reply("hm</think>alpha"), "prefilled", True),
        (reply("alpha"), "none", False),
        (reply(None, "length", reasoning="hm"), "reasoning", False),
    ],
)
def test_where_thoughts_come_back(tmp_path, message, where, prefilled):
    found, endpoint, _ = probe(tmp_path, lambda asked: message)
    assert found["thought"] == where and endpoint.prefilled == prefilled


def test_a_host_that_only_streams_and_wants_the_other_token_key(tmp_path):
    def answer(asked):
        if "max_tokens" in asked.body:
            return error(400, "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.")
        if not asked.body.get("stream"):
            return error(400, "enable_thinking must be set to false for non-streaming calls")
        chunk = {"choices": [{"index": 0, "delta": {"content": "alpha"}, "finish_reason": "stop"}]}
        return web.Response(text=f"data: {json.dumps(chunk)}\n\ndata: [DONE]\n\n")

    found, endpoint, _ = probe(tmp_path, answer)
    assert (endpoint.stream, endpoint.token_key) == (True, "max_completion_tokens")
    assert "streaming only; max_completion_tokens" in summary(found)


def test_an_option_that_the_run_needs_and_the_host_refuses_stops_it(tmp_path):
    def refuses(asked):
        return error(400, "Unrecognized argument: top_k") if "top_k" in asked.body else ignorant(asked)

    with pytest.raises(UserError, match=r"refuses top_k; set endpoints.teacher.extra_body.top_k=null to leave it out "):
        probe(tmp_path, refuses)
    without = {key: value for key, value in BODY.items() if key != "top_k"}
    found, _, _ = probe(tmp_path, refuses, without)
    assert found["top_k"] == "refused"


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (honest, "whole"),
        (lambda asked: reply("x", prompt_tokens=str(len(asked.problem.split()))), "whole"),
        (lambda asked: error(400, "maximum context length is 4096") if len(asked.problem) > LONG else "x", "refused"),
        (lambda asked: reply("alpha") | {"usage": None}, "not counted"),
    ],
)  # fmt: skip
def test_a_long_prompt(tmp_path, answer, said):
    found, _, _ = probe(tmp_path, answer, long=True)
    assert found["long_prompt"] == said


def test_a_server_that_cuts_in_silence_stops_the_run(tmp_path):
    def ollama(asked):
        return reply("x", prompt_tokens=min(window, len(asked.problem.split())))

    window = 4096
    with Server(fixed, probe=ollama) as server:
        config = load(
            build_crv.Config, command(write_problems(tmp_path / "p.jsonl", 2), tmp_path / "o", server.url)[2:-1]
        )
        assert config.probe is True  # the default: it costs one prompt
        with pytest.raises(UserError, match=rf"{server.url} cuts long prompts .*cut silently to 4096 tokens.*num_ctx"):
            build_crv.main(config)
        assert server.asked == []  # nothing was paid for
        window = 16_384
        build_crv.main(config)
        assert len([asked for asked in server.probes if len(asked.problem) > LONG]) == 2


def test_models_at_one_address_are_told_apart(tmp_path):
    def answer(asked):
        return "hm</think>alpha" if asked.body["model"] == "thinker" else "alpha"

    async def ask(url):
        prober, found = Prober(tmp_path / "probe.json"), []
        for model, extra in [("thinker", {}), ("m", {}), ("thinker", {}), ("m", {}), ("m", {"think": True})]:
            endpoint = Endpoint("teacher", EndpointConfig(url, model, extra_body=extra))
            before = len(server.probes)
            await prober(endpoint, BODY | {"model": model})
            found.append((endpoint.prefilled, len(server.probes) > before))
            await endpoint.close()
        return found

    with Server(None, probe=answer) as server:
        found = asyncio.run(ask(server.url))
    assert found == [(True, True), (False, True), (True, False), (False, False), (False, True)]


def test_a_refused_test_question_is_not_fatal_but_a_wrong_key_is(tmp_path):
    found, endpoint, _ = probe(tmp_path, lambda asked: error(400, "I only do mathematics"))
    assert found["thought"] == "unknown" and not endpoint.stream and "test question refused" in summary(found)
    with pytest.raises(CallError, match="HTTP 401"):
        probe(tmp_path, lambda asked: error(401, "who are you?"))


@pytest.mark.parametrize(
    "fault", [lambda: error(503), lambda: error(429, "slow", {"Retry-After": "0"}), lambda: error(500), lambda: RESET]
)
def test_a_third_of_faults_and_a_limit_of_requests(tmp_path, fault):
    """Test questions are tried again as any other, one at a time, within the limit, and none is asked anew."""
    arrived, dice = [], random.Random(4)

    def answer(asked):
        arrived.append(time.monotonic())
        return fault() if dice.random() < 1 / 3 else honest(asked)

    problems = write_problems(tmp_path / "problems.jsonl", 3)
    with Server(fixed, probe=answer) as server:
        words = ["probe=true", "endpoints.teacher.requests_per_minute=600", "endpoints.teacher.retries=8"]
        done = run(problems, tmp_path / "out", server.url, *words)
    assert done.returncode == 0, done.stderr
    assert 7 <= len(arrived) <= 24 and arrived[-1] - arrived[0] > 0.05 * (len(arrived) - 1)
    assert "top_k honoured; long prompt whole" in done.stderr


def test_a_probe_that_is_given_up_continues_where_it_was(tmp_path):
    faults = [error] * 6  # of the second question: more than one probe asks it

    def answer(asked):
        return faults.pop()(503) if asked.body.get("top_k") == 1 and faults else honest(asked)

    problems = write_problems(tmp_path / "problems.jsonl", 1)
    with Server(fixed, probe=answer) as server:
        words = ["probe=true", "endpoints.teacher.retries=3"]
        done = run(problems, tmp_path / "out", server.url, *words)
    assert done.returncode == 0, done.stderr
    assert len(server.probes) == 6 + 7 and sum("exactly one" in asked.problem for asked in server.probes) == 2


def test_the_deadline_of_a_test_question_grows_when_it_was_too_short(tmp_path, monkeypatch):
    """A CPU may read the long prompt for minutes, whatever the queue is allowed to take."""
    monkeypatch.setattr("agents.client.TOKENS_PER_SECOND", 1e9)
    monkeypatch.setattr("agents.limits.FIRST_PAUSE", 0.01)

    async def answer(asked):
        await asyncio.sleep(0.7 if len(asked.problem) > LONG else 0)
        return honest(asked)

    found, endpoint, _ = probe(tmp_path, answer, long=True, timeout=0.5)
    assert found["long_prompt"] == "whole" and endpoint.limit.limit == endpoint.limit.ceiling


@pytest.mark.parametrize("temperature", [0.0, None])
def test_a_greedy_run_or_one_without_a_temperature_is_probed_too(tmp_path, temperature):
    body = {key: value for key, value in (BODY | {"temperature": temperature}).items() if value is not None}

    def picky(asked):  # vLLM refuses two answers at temperature 0, Claude temperatures above 1
        if asked.body.get("n", 1) > 1 or asked.body.get("temperature", 0) > 1:
            return error(400, "temperature must be at most 1")
        return "alpha"

    found, _, _ = probe(tmp_path, picky, body)
    assert (found["thought"], found["top_k"]) == ("none", "unknown")


def test_a_run_probes_once_remembers_and_shows_it(tmp_path):
    problems = write_problems(tmp_path / "problems.jsonl", 4)
    broken = []

    def shy(asked):  # not quite up yet
        if len(broken) < 2:
            broken.append(asked)
            return error(503)
        return honest(asked)

    with Server(fixed, probe=shy) as server:
        done = run(problems, tmp_path / "out", server.url, "probe=true")
        asked = len(server.probes)
        assert done.returncode == 0 and asked - len(broken) == 7, done.stderr
        assert done.stderr.count("no thoughts; top_k honoured; long prompt whole") == 1
        (tmp_path / "out/journal.jsonl").unlink()
        done = run(problems, tmp_path / "out", server.url, "probe=true")
        assert done.returncode == 0 and len(server.probes) == asked, done.stderr  # read from probe.json
        done = run(problems, tmp_path / "other", server.url, "probe=false")
        assert done.returncode == 0 and len(server.probes) == asked
    done = run(problems, tmp_path / "third", server.url, "probe=true")
    check_refused(done, f"{server.url} does not answer", lines=4)


def obeys(asked, text="alpha"):
    """Says one of the words that it is left."""
    if format := asked.body.get("response_format"):
        return json.dumps({"verdict": format["json_schema"]["schema"]["properties"]["verdict"]["enum"][-1]})
    return text


def refuses_formats(asked):
    return error(400, "response_format is not supported") if "response_format" in asked.body else "alpha"


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (obeys, "honoured"),
        (lambda asked: reply(obeys(asked), reasoning="hm"), "honoured"),
        (ignorant, "ignored"),
        (refuses_formats, "ignored"),  # asked again without it
        (lambda asked: error(400, "what?") if "response_format" in asked.body else "alpha", "refused"),
        (lambda asked: error(500, "no grammar") if "response_format" in asked.body else "alpha", "refused"),
        (lambda asked: error(404, "no endpoints found") if "response_format" in asked.body else "alpha", "refused"),
        (lambda asked: RESET if "response_format" in asked.body else "alpha", "refused"),
        (lambda asked: obeys(asked, "<think>hm</think>alpha"), None),  # it would have no thought
        (lambda asked: obeys(asked, "hm</think>alpha"), None),
    ],
)
def test_whether_a_choice_is_kept_to(tmp_path, answer, found):
    said, endpoint, server = probe(tmp_path, answer, choice=True)
    assert said.get("choice") == found and endpoint.choices == (found == "honoured")
    assert any("response_format" in asked.body for asked in server.probes) == (found is not None)
    assert ("choice" in summary(said)) == (found is not None)


@pytest.mark.parametrize(
    ("probed", "outcome"), [(obeys, "2 problems = 2 kept"), (lambda asked: "alpha", "2 critic_invalid")]
)
def test_the_last_asking_for_a_label_leaves_no_other_words(tmp_path, probed, outcome):
    """Only that one, only of Critic and Verifier, and only where the probe says so."""

    def answer(asked):
        if asked.role in ("critic", "verifier"):
            return obeys(asked, "Let me think about it.").replace("hard", "medium").replace("NO", "YES")
        return f"Oops, = {int(asked.answer) + 5}"

    with Server(answer, probe=lambda asked: reply(probed(asked), prompt_tokens=10**4)) as server:
        done = run(write_problems(tmp_path / "p.jsonl", 2), tmp_path / "out", server.url, "probe=true")
    assert done.returncode == 0 and outcome in done.stderr, done.stderr
    formats = ["response_format" in asked.body for asked in server.asked if asked.problem.startswith("What is 1 ")]
    assert formats == ([False, False, True] * 2 + [False] if probed is obeys else [False] * 3)
