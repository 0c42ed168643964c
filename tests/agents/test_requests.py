"""How an endpoint wants to be asked: what is sent, renamed, pinned and left out, and at what address."""

import asyncio

import pytest
from aiohttp import web

from agents.client import Endpoint
from agents.limits import EndpointConfig
from agents.pool import Pool
from tests.agents.test_client import body, chat
from tests.agents.test_replies import stream_of
from tests.support.scripted_endpoint import Server, error


def prepared(server, bodies, **found):
    async def run():
        async def prober(endpoint, body):
            vars(endpoint).update(found)

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

    found = {"token_key": "max_completion_tokens", "stream": True, "prefilled": True}
    with Server(answer) as server:
        replies = prepared(server, [body()], **found)
        replies += prepared(server, [body()], **found)
    assert [(r.status, r.text) for r in replies] == [("ok", "easy"), ("misrouted", "")]
    assert server.asked[0].body["max_completion_tokens"] == 9


def refuses(name, words):
    return lambda asked: error(400, words) if name in asked.body else "easy"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("seed", "body.seed: Extra inputs are not permitted"),  # Mistral
        ("max_tokens", "Unsupported parameter: 'max_tokens' is not supported with this model. Use "
         "'max_completion_tokens' instead."),
    ],
)  # fmt: skip
def test_a_field_that_changes_nothing_is_left_out_or_renamed(name, words, capsys):
    with Server(refuses(name, words)) as server:
        replies, _ = chat(server, [body(n) | {"seed": n} for n in range(3)], concurrency=1, has_answered=False)
    assert [r.text for r in replies] == ["easy"] * 3 and len(server.asked) == 4
    assert all(r.left_out == (("seed",) if name == "seed" else ()) for r in replies)
    assert (name == "seed") == ("refuses seed, which is left out" in capsys.readouterr().err)


@pytest.mark.parametrize(
    ("words", "keys"),
    [
        (
            "Unsupported value: 'temperature' does not support 0.7 with this model.",
            ["temperature"],
        ),  # OpenAI's o-series
        ("`temperature` and `top_p` cannot both be specified for this model.", ["temperature", "top_p"]),  # Claude
        ("property 'top_k' is unsupported", ["top_k"]),  # Groq
        ('Invalid JSON payload received. Unknown name "top_k": Cannot find field.', ["top_k"]),  # Gemini
    ],
)
def test_a_field_that_changes_the_sampling_is_the_users_to_leave_out(words, keys):
    asked = body() | {"temperature": 0.7, "top_p": 0.9, "top_k": 50}
    refusing = lambda a: error(400, words) if all(key in a.body for key in keys) else "easy"  # noqa: E731
    with Server(refusing) as server:
        (stopped,), _ = chat(server, [asked], has_answered=False)
        assert f"refuses {', '.join(keys)}; set endpoints.teacher.extra_body.{keys[0]}=null" in str(stopped)
        (got,), _ = chat(server, [asked], has_answered=False, extra_body={keys[0]: None})
    assert got.text == "easy" and keys[0] not in server.asked[-1].body


@pytest.mark.parametrize("given", [False, None])
def test_what_the_user_sets_is_not_changed_and_asked_again_for_ever(given):
    refusing = lambda asked: "easy" if asked.body.get("stream") else error(400, "stream must be true")  # noqa: E731
    with Server(refusing) as server:
        (stopped,), _ = chat(server, [body()], extra_body={"stream": given})
    assert stopped.status == "refused" and len(server.asked) == 1


def test_every_field_can_be_left_out():
    asked = body() | {"temperature": 0.7, "top_p": 0.9, "seed": 3}
    with Server(lambda asked: "easy") as server:
        chat(server, [asked], extra_body=dict.fromkeys(["temperature", "top_p", "seed", "max_tokens"]))
    assert server.asked[0].body.keys() == {"model", "messages"}


# --- what GET /models tells ---


def served(owner, **more):
    return {"object": "list", "data": [{"id": "m", "object": "model", "owned_by": owner} | more]}


@pytest.mark.parametrize("owner", ["vllm", "sglang", "llamacpp", "someone"])
def test_what_a_server_would_add_is_pinned_where_it_takes_it(owner):
    with Server(lambda asked: "easy") as server:
        server.models = served(owner)
        chat(server, [body(), body() | {"top_k": 50}], extra_body={"min_p": 0.1}, concurrency=1)
    plain, own = (asked.body for asked in server.asked)
    assert plain["min_p"] == 0.1 and own["top_k"] == 50
    penalty = "repeat_penalty" if owner == "llamacpp" else "repetition_penalty"
    assert (plain.get("top_k"), plain.get(penalty)) == ((None, None) if owner == "someone" else (-1, 1.0))


def test_a_pin_that_is_refused_is_dropped():
    with Server(refuses("min_p", "Unrecognized request argument supplied: min_p")) as server:
        server.models = served("vllm")
        replies, _ = chat(server, [body(n) for n in range(3)], concurrency=1, has_answered=False)
    assert [r.text for r in replies] == ["easy"] * 3 and len(server.asked) == 4


@pytest.mark.parametrize("more", [{"max_model_len": 2048}, {"meta": {"n_ctx": 2048, "n_ctx_train": 8192}}])
def test_the_window_is_read(more):
    with Server(lambda asked: "easy") as server:
        server.models = served("someone", **more)
        _, endpoint = chat(server, [body()])
    assert endpoint.window == 2048


def test_an_address_without_v1_or_with_too_much_is_repaired(capsys):
    with Server(lambda asked: "easy") as server:
        server.models = served("vllm")
        for url in (server.url.removesuffix("/v1"), server.url + "/chat/completions", server.url + "/"):
            replies, _ = chat(url, [body()], has_answered=False)
            assert replies[0].text == "easy"
    assert capsys.readouterr().err.count(f"the API is below {server.url}, which is used; correct base_url") == 1
