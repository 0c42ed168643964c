"""The client against a real server: outcomes, retries, limits."""

import asyncio
import re
import socket
import time
import traceback

import pytest
from aiohttp import web

from agents.client import MAX_REFUSALS, Endpoint
from agents.limits import EndpointConfig, retry_after
from agents.pool import Pool
from agents.prompts import load_prompts, question
from errors import UserError
from tests.support.scripted_endpoint import Server, error, reply


def body(n=0):
    return {"model": "m", "messages": question(load_prompts()["critic"], f"problem {n}", "1", "chain"), "max_tokens": 9}


def chat(server, bodies, has_answered=True, **settings):
    """All bodies at once through one Endpoint. Returns (replies or exceptions, the Endpoint)."""
    settings = {"concurrency": 64, "timeout": 20, "retries": 2} | settings
    url = server if isinstance(server, str) else server.url

    async def run():
        endpoint = Endpoint("teacher", EndpointConfig(base_url=url, model="m", **settings), has_answered=has_answered)
        pool = Pool([endpoint])
        try:
            replies = await asyncio.gather(*[pool.chat(b) for b in bodies], return_exceptions=True)
        finally:
            await endpoint.close()
        return replies, endpoint

    return asyncio.run(run())


def test_retry_after_is_obeyed():
    times = []

    def answer(asked):
        times.append(time.monotonic())
        return error(429, "slow down", {"Retry-After": "0.7"}) if asked.tries == 0 else "easy"

    with Server(answer) as server:
        replies, endpoint = chat(server, [body()])
    assert replies[0].text == "easy" and endpoint.retried == 1
    assert times[1] - times[0] >= 0.7  # without the header the pause would be 10 ms at most


def cut_short(asked):
    """Half a JSON body under a proper header."""
    return web.Response(text='{"choices": [{"mess', content_type="application/json")


async def hang_up(asked):
    return web.Response(text="not even JSON", status=200)


async def sleep(asked):
    await asyncio.sleep(0.5)
    return "late"


@pytest.mark.parametrize(
    "failure",
    [
        lambda asked: error(500),
        lambda asked: error(503),
        lambda asked: error(429),
        lambda asked: error(502, "bad gateway"),
        lambda asked: web.json_response({"choices": []}),
        lambda asked: web.json_response(["what"]),
        lambda asked: web.Response(body=b"no gzip", headers={"Content-Encoding": "gzip"}),
        lambda asked: reply("ea", "abort"),
        lambda asked: reply("ea", "error"),
        lambda asked: reply("ea", "insufficient_system_resource"),
        cut_short,
        hang_up,
        sleep,
    ],
    ids=[
        "500",
        "503",
        "429",
        "502",
        "no choices",
        "a list",
        "no gzip",
        "abort",
        "error",
        "no resource",
        "half a body",
        "plain text",
        "hangs",
    ],
)
def test_a_passing_failure_is_tried_again(failure):
    with Server(lambda asked: failure(asked) if asked.tries == 0 else "easy") as server:
        replies, endpoint = chat(server, [body()], timeout=0.3)
    assert replies[0].text == "easy" and endpoint.retried == 1


def test_a_server_that_takes_connections_and_answers_nothing_is_given_up_after_one_deadline(monkeypatch):
    monkeypatch.setattr("agents.client.CONNECT", 0.2)
    begin = time.monotonic()
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        (lost,), endpoint = chat(f"http://127.0.0.1:{deaf.getsockname()[1]}/v1", [body()], timeout=0.3, retries=8)
    assert isinstance(lost, UserError) and re.search("no answer within .* nor to GET /models", str(lost))
    assert endpoint.retried == 1 and time.monotonic() - begin < 5


def test_the_deadline_grows_when_it_was_too_short():
    with Server(sleep) as server:
        replies, endpoint = chat(server, [body()], timeout=0.2)
    assert replies[0].text == "late" and endpoint.retried == 2  # 0.2 s, 0.4 s, 0.8 s


def test_a_reset_connection_is_tried_again():
    async def reset(reader, writer):
        tries.append(await reader.read(100))
        if tries[-1].startswith(b"GET"):
            writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            await writer.drain()
        writer.transport.abort()

    tries = []

    async def run():
        server = await asyncio.start_server(reset, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        endpoint = Endpoint("teacher", EndpointConfig(url, "m", retries=2))
        with pytest.raises(UserError, match="does not answer"):
            await Pool([endpoint]).chat(body())
        await endpoint.close()
        server.close()

    asyncio.run(run())
    assert len([t for t in tries if t.startswith(b"POST")]) == 3


def test_a_dead_endpoint_is_named_with_its_url():
    replies, endpoint = chat("http://127.0.0.1:9/v1", [body()], retries=2)
    assert isinstance(replies[0], UserError) and endpoint.retried == 3
    assert "http://127.0.0.1:9/v1" in str(replies[0]) and "3 tries" in str(replies[0])
    assert "Connect call failed" in str(replies[0])  # the reason, not the transport's "timed out"


def test_a_question_that_breaks_the_server_is_given_up_alone():
    with Server(lambda a: error(500, "assertion") if a.problem == "problem 3" else "easy") as server:
        replies, _ = chat(server, [body(n) for n in range(6)], concurrency=1)
    assert [r.status for r in replies] == ["ok"] * 3 + ["transport"] + ["ok"] * 2
    assert "assertion" in replies[3].detail


def test_a_server_that_only_fails_ends_the_run():
    with Server(lambda a: error(500, "out of memory")) as server:
        unproven, _ = chat(server, [body()], has_answered=False)
        proven, _ = chat(server, [body(n) for n in range(30)], retries=0)
    assert isinstance(unproven[0], UserError) and "out of memory" in str(unproven[0])
    assert any(isinstance(r, UserError) for r in proven)


def test_a_redirect_loop_is_named():
    with Server(lambda a: web.Response(status=307, headers={"Location": "/v1/chat/completions"})) as server:
        replies, _ = chat(server, [body()], has_answered=False, retries=0)
    assert isinstance(replies[0], UserError) and "redirects" in str(replies[0])


def test_congestion_is_not_the_questions_fault():
    """With the tries used up while others are served, a 429 goes on waiting."""

    async def answer(asked):
        if asked.problem == "problem 0" and asked.tries < 7:
            return error(429)
        await asyncio.sleep(0.02)
        return "easy"

    with Server(answer) as server:
        replies, _ = chat(server, [body(n) for n in range(40)], concurrency=2, retries=2)
    assert [r.status for r in replies] == ["ok"] * 40


def test_a_wrong_key_ends_the_run_and_is_never_shown(monkeypatch):
    monkeypatch.setenv("MY_KEY", "sk-very-secret")
    seen = []

    def answer(asked):
        seen.append(asked.headers["Authorization"])
        return error(401, "Incorrect API key provided: sk-very-secret")

    with Server(answer) as server:
        replies, _ = chat(server, [body()], api_key_env="MY_KEY")
    assert seen == ["Bearer sk-very-secret"] * 3
    assert "HTTP 401" in str(replies[0]) and "$MY_KEY" in str(replies[0]) and "secret" not in str(replies[0])


def test_a_key_is_stripped_and_must_be_ascii(monkeypatch):
    monkeypatch.setenv("MY_KEY", "sk-secret\r")
    with Server(lambda asked: "easy") as server:
        chat(server, [body()], api_key_env="MY_KEY")
        for key in ("sk-sécret", "sk-\r\nX: y"):
            monkeypatch.setenv("MY_KEY", key)
            with pytest.raises(UserError, match=r"\$MY_KEY .*is no API key"):
                chat(server, [body()], api_key_env="MY_KEY")
    assert [asked.headers["Authorization"] for asked in server.asked] == ["Bearer sk-secret"]


def test_a_key_that_is_not_set_is_named(monkeypatch):
    monkeypatch.delenv("MY_KEY", raising=False)
    with pytest.raises(UserError, match=r"endpoints.teacher.api_key_env names \$MY_KEY"):
        chat("http://127.0.0.1:9/v1", [body()], api_key_env="MY_KEY")


def test_no_key_of_another_tool_is_sent(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-mine")
    with Server(lambda asked: "easy") as server:
        chat(server, [body()])
    assert "sk-mine" not in str(server.asked[0].headers)


def test_a_proxy_of_the_environment_is_named(monkeypatch):
    """Who sets one for the hub meets it before a server of his own machine, too."""
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", "http://user:secret@127.0.0.1:9")
    with Server(lambda asked: "easy") as server:
        (refused,), _ = chat(server, [body()])
        assert "/v1 by the environment's proxy (NO_PROXY names exceptions) does not answer" in str(refused)
        assert "secret" not in str(refused)
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        (reply,), _ = chat(server, [body()])
        assert reply.text == "easy"


@pytest.mark.parametrize("text", ["[" * 100_000, '{"choices": ' + '{"a": ' * 2000, "\ufeff[]"])
def test_a_body_that_no_parser_takes_is_a_failure_like_others(text):
    with Server(lambda asked: web.Response(text=text, content_type="application/json")) as server:
        (reply,), _ = chat(server, [body()])
    assert reply.status == "transport" and "no chat completion" in reply.detail


def test_refusals_are_typed():
    words = {
        "problem 0": error(400, "This model's maximum context length is 4096 tokens."),
        "problem 1": error(400, "bad", code="content_filter"),
        "problem 2": error(400, "something else"),
        "problem 3": error(400, "too big", code="context_length_exceeded"),
        "problem 4": error(400, "do not say \ud83d"),
    }
    with Server(lambda a: words[a.problem]) as server:
        replies, endpoint = chat(server, [body(n) for n in range(5)])
    assert [r.status for r in replies] == ["too_long", "filtered", "refused", "too_long", "refused"]
    assert replies[4].detail == "HTTP 400: do not say \ufffd"
    assert endpoint.retried == 0


@pytest.mark.parametrize("form", ["fastapi", "vllm", "bare"])
def test_a_complaint_does_not_repeat_the_question(form):
    """FastAPI hands the input back that it refuses; what stands in a private question must reach no log."""
    secret = {"type": "extra_forbidden", "loc": ["body", "messages", 0], "msg": "not permitted", "input": "the secret"}
    answer = {
        "fastapi": lambda asked: web.json_response({"detail": [secret, secret]}, status=422),
        "vllm": lambda asked: error(400, f"2 validation errors: {[secret, secret]}"),
        "bare": lambda asked: web.json_response({"errors": [secret]}, status=422),
    }[form]
    with Server(answer) as server:
        replies, _ = chat(server, [body()])
    assert replies[0].status == "refused" and "secret" not in str(replies[0])
    assert "not permitted" in replies[0].detail
    if form == "fastapi":
        assert replies[0].detail == "HTTP 422: " + "; ".join(["body.messages.0: not permitted"] * 2)


def test_a_request_that_is_wrong_in_itself_stops_the_run():
    with Server(lambda a: error(400, "Unrecognized request argument supplied: top_k")) as server:
        replies, _ = chat(server, [body(n) for n in range(MAX_REFUSALS + 5)], has_answered=False, concurrency=1)
        with pytest.raises(UserError, match="refused every request"):
            Pool([chat(server, [body()], has_answered=False)[1]]).check_served()
    stopped = [r for r in replies if isinstance(r, UserError)]
    assert stopped and "top_k" in str(stopped[0])
    assert all(r.status == "refused" for r in replies if not isinstance(r, UserError))


def test_concurrency_is_bounded_and_reached():
    """150 requests wait for each other on the server: an HTTP pool of 100 would hang here."""
    barrier, peak = asyncio.Barrier(150), [0, 0]

    async def answer(asked):
        peak[0] += 1
        peak[1] = max(peak)
        await barrier.wait()
        peak[0] -= 1
        return "easy"

    with Server(answer) as server:
        replies, _ = chat(server, [body(n) for n in range(300)], concurrency=150)
    assert all(r.text == "easy" for r in replies)
    assert peak[1] == 150


def test_extra_body_reaches_the_server():
    with Server(lambda asked: "easy") as server:
        chat(server, [body()], extra_body={"chat_template_kwargs": {"enable_thinking": True}})
    assert server.asked[0].body["chat_template_kwargs"] == {"enable_thinking": True}


def test_a_prompt_that_the_server_cuts_in_silence_is_too_long():
    """Ollama answers 200 after 4,096 tokens; its count gives it away. Normal text has about 4 letters a token."""
    long = body()
    long["messages"][-1]["content"] += " word" * 10_000
    with Server(lambda asked: reply("easy", prompt_tokens=2048)) as server:
        cut, _ = chat(server, [long])
        server.answer = lambda asked: reply("easy", prompt_tokens=10_000)
        whole, _ = chat(server, [long])
    assert cut[0].status == "too_long" and "2048 tokens" in cut[0].detail and cut[0].completion_tokens == 7
    assert whole[0].status == "ok"


def test_the_deadline_follows_from_the_tokens(monkeypatch):
    monkeypatch.setattr("agents.client.TOKENS_PER_SECOND", 20)

    async def run():
        endpoint = Endpoint("t", EndpointConfig("http://127.0.0.1:9/v1", "m", timeout=60))
        await endpoint.close()
        return [endpoint.deadline({"max_tokens": 1000}), endpoint.deadline({"max_completion_tokens": 1000}, 2)]

    assert asyncio.run(run()) == [110, 440]


def test_no_traceback_holds_the_key(monkeypatch):
    """Whatever way the server echoes it."""
    monkeypatch.setenv("MY_KEY", "sk-very-secret")
    echoes = [
        error(400, "bad key sk-very-secret"),
        error(401, "bad key sk-very-secret"),
        error(500, "bad key sk-very-secret", code="sk-very-secret"),
        error(400, "x" * 292 + " sk-very-secret"),  # where the words are cut
        web.Response(status=502, text="<html>sk-very-secret</html>"),
        web.Response(status=200, text="sk-very-secret"),
        web.json_response({"error": "sk-very-secret"}),
        web.json_response(reply("easy") | {"usage": {"prompt_tokens": "sk-very-secret"}}),
        web.json_response(["sk-very-secret"], status=403),
    ]

    async def run(url):
        endpoint = Endpoint("t", EndpointConfig(url, "m", api_key_env="MY_KEY"))
        try:
            return repr(await endpoint.ask(body()))
        except Exception:
            return traceback.format_exc()
        finally:
            await endpoint.close()

    for echo in echoes:
        with Server(lambda asked: echo) as server:  # noqa: B023
            text = asyncio.run(run(server.url))
        assert "HTTP" in text or "no chat completion" in text or "status='ok'" in text
        assert "very-secret" not in text and "sk-v" not in text


# --- what passes, and what stays ---


@pytest.mark.parametrize("status", [401, 402, 403, 404, 408, 409, 425, 499])
def test_a_gateways_blip_is_tried_again(status):
    """After good answers and before the first one; a bare status, without a body."""
    with Server(lambda asked: web.Response(status=status) if asked.tries == 0 else "easy") as server:
        for has_answered in (True, False):
            server.seen.clear()
            replies, _ = chat(server, [body(n) for n in range(4)], has_answered=has_answered)
            assert [r.text for r in replies] == ["easy"] * 4


def test_a_blip_that_stays_for_one_question_costs_that_question_alone():
    with Server(lambda asked: web.Response(status=404) if asked.problem == "problem 2" else "easy") as server:
        replies, _ = chat(server, [body(n) for n in range(8)], concurrency=2)
    assert [r.status for r in replies] == ["ok"] * 2 + ["transport"] + ["ok"] * 5


def test_an_unknown_model_ends_a_run_that_has_no_answer_yet(monkeypatch):
    monkeypatch.setattr("agents.client.LOCKED_OUT", 0.05)
    words = "The model `m` does not exist."
    with Server(lambda asked: error(404, words, type="NotFoundError", code=404)) as server:
        (stopped,), _ = chat(server, [body()], has_answered=False, retries=50)
    assert isinstance(stopped, UserError) and f"{server.url} says HTTP 404: {words}" in str(stopped)
    assert 2 <= len(server.asked) < 20


@pytest.mark.parametrize(
    ("asks", "seconds"),
    [("inf", 600), ("1e400", 600), ("-5", 0), ("nan", None), ("soon", None), ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
     ("Fri, 31 Dec 9999 23:59:59 GMT", 600), ("Mon, 99 Foo 2026 99:99:99 GMT", None), ("86400", 600), ("2.5", 2.5),
     ("", None)],
)  # fmt: skip
def test_retry_after_of_every_kind(asks, seconds):
    assert retry_after({"retry-after": asks}) == seconds
