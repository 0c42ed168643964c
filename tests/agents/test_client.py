"""The client against a real server: outcomes, retries, limits."""

import asyncio
import json
import time
import traceback

import pytest
from aiohttp import web

from agents.client import MAX_REFUSALS, CallError, Endpoint, RequestQuirks, read_reply, room_left
from agents.limits import EndpointConfig
from agents.pool import Pool
from agents.prompts import load_prompts, question
from errors import UserError
from tests.support.scripted_endpoint import Server, error, reply


def body(n=0):
    return {"model": "m", "messages": question(load_prompts()["critic"], f"problem {n}", "1", "chain"), "max_tokens": 9}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Pauses of hundredths of a second, and deadlines that are hardly longer than `timeout`."""
    monkeypatch.setattr("agents.pool.FIRST_PAUSE", 0.01)
    monkeypatch.setattr("agents.client.TOKENS_PER_SECOND", 1000)


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


def completion(content, finish="stop", **message):
    return reply(content, finish, **message)


@pytest.mark.parametrize(
    ("given", "status", "text"),
    [
        (completion("medium"), "ok", "medium"),
        (completion("<think>easy? hard?</think>\n\nmedium"), "ok", "medium"),
        (completion("the template wrote the opening tag </think> hard"), "ok", "hard"),
        (completion("a </think> b </think> c"), "ok", "c"),
        (completion("easy", reasoning="hmm"), "ok", "easy"),
        (completion("easy", reasoning_content="hmm"), "ok", "easy"),
        (completion(None, reasoning="it is medium"), "misrouted", ""),
        (completion("", reasoning_content="it is medium"), "misrouted", ""),
        (completion("<think>it is medium"), "misrouted", ""),
        (completion("it is medium</think>  "), "misrouted", ""),
        (completion(None), "empty", ""),
        (completion("  "), "empty", ""),
        (completion("half \ud83d"), "ok", "half \ufffd"),
        (completion("\ud83d\ude00"), "ok", "😀"),
        (completion("medium", "length"), "truncated", ""),
        (completion("<think>so", "length"), "truncated", ""),
        (completion(None, "length", reasoning="so"), "truncated", ""),
        (completion("med", "content_filter"), "filtered", ""),
        (completion(None, refusal="I cannot"), "filtered", ""),
    ],
)
def test_reply_is_split_and_typed(given, status, text):
    got = read_reply(given)
    assert (got.status, got.text) == (status, text)


def test_tokens_may_be_strings():
    got = read_reply(reply("easy", prompt_tokens="3", completion_tokens="4"))
    assert (got.prompt_tokens, got.completion_tokens) == (3, 4)


def test_tokens_are_counted_and_may_be_missing():
    assert (read_reply(reply("x")).prompt_tokens, read_reply(reply("x")).completion_tokens) == (11, 7)
    assert read_reply(reply("x") | {"usage": None}).completion_tokens == 0


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


def test_the_deadline_grows_when_it_was_too_short():
    with Server(sleep) as server:
        replies, endpoint = chat(server, [body()], timeout=0.2)
    assert replies[0].text == "late" and endpoint.retried == 2  # 0.2 s, 0.4 s, 0.8 s


def test_a_reset_connection_is_tried_again():
    async def reset(reader, writer):
        tries.append(await reader.read(100))
        writer.transport.abort()

    tries = []

    async def run():
        server = await asyncio.start_server(reset, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        endpoint = Endpoint("teacher", EndpointConfig(url, "m", retries=2), has_answered=True)
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


def test_a_wrong_key_stops_at_once_and_is_never_shown(monkeypatch):
    monkeypatch.setenv("MY_KEY", "sk-very-secret")
    seen = []

    def answer(asked):
        seen.append(asked.headers["Authorization"])
        return error(401, "Incorrect API key provided: sk-very-secret")

    with Server(answer) as server:
        replies, _ = chat(server, [body()], api_key_env="MY_KEY")
    assert seen == ["Bearer sk-very-secret"]
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


# --- context length ---

SAID = {
    "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens (2000 in the messages, "
    "3000 in the completion). Please reduce the length of the messages or completion.": 4096 - 2000 - 64,
    "'max_tokens' or 'max_completion_tokens' is too large: 3000. This model's maximum context length is 4096 tokens "
    "and your request has 2000 input tokens (3000 > 4096 - 2000).": 4096 - 2000 - 64,
    "You passed 2000 input tokens and requested 3000 output tokens. However, the model's context length is only 4096 "
    "tokens": 4096 - 2000 - 64,
    "Requested token count exceeds the model's maximum context length of 4096 tokens. You requested a total of 5000 "
    "tokens: 2000 tokens from the input messages and 3000 tokens for the completion.": 4096 - 2000 - 64,
    "max_tokens is too large: 3000. This model supports at most 2000 completion tokens": 2000,
    "This model's maximum context length is 4096 tokens. However, your messages resulted in 9000 tokens.": None,
    "the request exceeds the available context size (4096 tokens), try increasing it": None,
}


@pytest.mark.parametrize(("words", "room"), SAID.items())
def test_the_servers_numbers_are_read(words, room):
    assert room_left(words) == room


@pytest.mark.parametrize(("words", "room"), SAID.items())
def test_an_answer_is_shortened_where_the_prompt_fits_and_never_asked_for_blindly(words, room):
    def answer(asked):
        return error(400, words) if asked.body["max_tokens"] == 3000 else "easy"

    with Server(answer) as server:
        replies, endpoint = chat(server, [body() | {"max_tokens": 3000}])
    assert replies[0].status == ("ok" if room else "too_long") and endpoint.retried == 0
    assert [asked.body["max_tokens"] for asked in server.asked] == ([3000, room] if room else [3000])


def test_a_prompt_that_leaves_no_room_is_too_long():
    words = "maximum context length is 4096 tokens. However, you requested 7000 tokens (4000 in the messages, …)"
    with Server(lambda asked: error(400, words)) as server:
        replies, _ = chat(server, [body() | {"max_tokens": 3000}])
    assert replies[0].status == "too_long" and len(server.asked) == 1


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


# --- how an endpoint wants to be asked ---


def stream_of(*deltas, finish="stop", done=True):
    chunks = [{"choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    chunks += [{"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]}]
    chunks += [{"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 4}}]
    lines = [f"data: {json.dumps(chunk)}" for chunk in chunks] + [": keep-alive", "data: [DONE]"] * done
    return "\n\n".join(lines) + "\n\n"


def streamed(text):
    """The Reply in a server's stream of events."""

    async def run(url):
        endpoint = Endpoint("teacher", EndpointConfig(url, "m"))
        try:
            return await endpoint.post({"model": "m", "messages": [], "stream": True}, 10, read_reply)
        finally:
            await endpoint.close()

    with Server(None, probe=lambda asked: web.Response(text=text, content_type="text/event-stream")) as server:
        return asyncio.run(run(server.url))


def test_a_streamed_answer_is_put_together():
    text = stream_of({"role": "assistant", "content": ""}, {"reasoning": "h"}, {"reasoning": "m"}, {"content": "ea"},
                     {"content": "sy"})  # fmt: skip
    got = streamed(text)
    assert (got.status, got.text, got.prompt_tokens, got.completion_tokens) == ("ok", "easy", 3, 4)
    assert got.whole == "<think>hm</think>easy"
    assert streamed(stream_of({"content": "ea"}, finish="length")).status == "truncated"
    with pytest.raises(CallError, match="breaks off"):
        streamed("\n".join(text.splitlines()[:6]))
    with pytest.raises(CallError, match="breaks off"):
        streamed(stream_of({"content": "ea"}, finish=None))
    with pytest.raises(CallError, match=r"broke off: .*engine died"):
        streamed('data: {"error": {"message": "engine died"}}\n\n' + text)
    assert streamed(text.replace("sy", "\u2028sy")).text == "ea\u2028sy"


def with_quirks(server, quirks, bodies):
    async def run():
        async def prober(endpoint, body):
            return quirks

        pool = Pool([Endpoint("teacher", EndpointConfig(server.url, "m"), prober=prober)])
        try:
            return await asyncio.gather(*map(pool.chat, bodies))
        finally:
            await pool.close()

    return asyncio.run(run())


def test_what_the_probe_found_is_used():
    def answer(asked):
        if not asked.body.get("stream") or "max_tokens" in asked.body:
            return error(400, "no")
        text = stream_of({"content": "think, no tag"} if asked.tries else {"content": "so</think>easy"})
        return web.Response(text=text, content_type="text/event-stream")

    quirks = RequestQuirks(token_key="max_completion_tokens", stream=True, prefilled=True)
    with Server(answer) as server:
        replies = with_quirks(server, quirks, [body()])
        replies += with_quirks(server, quirks, [body()])
    assert [(r.status, r.text) for r in replies] == [("ok", "easy"), ("misrouted", "")]
    assert server.asked[0].body["max_completion_tokens"] == 9


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
        web.json_response(completion("easy") | {"usage": {"prompt_tokens": "sk-very-secret"}}),
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
        assert "HTTP" in text or "no chat completion" in text
        assert "very-secret" not in text and "sk-v" not in text
