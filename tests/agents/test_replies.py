"""What servers answer, whole or in streams, and the Reply that is read from it."""

import json

import pytest

from agents.replies import StreamError, read_completion, read_reply
from tests.support.scripted_endpoint import reply


@pytest.mark.parametrize(
    ("given", "status", "text"),
    [
        (reply("medium"), "ok", "medium"),
        (reply("<think>easy? hard?</think>\n\nmedium"), "ok", "medium"),
        (reply("the template wrote the opening tag </think> hard"), "ok", "hard"),
        (reply("a </think> b </think> c"), "ok", "c"),
        (reply("easy", reasoning="hmm"), "ok", "easy"),
        (reply("easy", reasoning_content="hmm"), "ok", "easy"),
        (reply(None, reasoning="it is medium"), "misrouted", ""),
        (reply("", reasoning_content="it is medium"), "misrouted", ""),
        (reply("<think>it is medium"), "misrouted", ""),
        (reply("it is medium</think>  "), "misrouted", ""),
        (reply(None), "empty", ""),
        (reply("  "), "empty", ""),
        (reply("half \ud83d"), "ok", "half \ufffd"),
        (reply("\ud83d\ude00"), "ok", "😀"),
        (reply("medium", "length"), "truncated", ""),
        (reply("<think>so", "length"), "truncated", ""),
        (reply(None, "length", reasoning="so"), "truncated", ""),
        (reply("med", "content_filter"), "filtered", ""),
        (reply(None, refusal="I cannot"), "filtered", ""),
        # Mistral's Magistral, Anthropic's and LiteLLM's parts, OpenRouter's details, Ollama's field
        (
            reply(
                [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "easy"}]
            ),
            "ok",
            "easy",
        ),
        (reply([{"type": "text", "text": "ea"}, {"type": "text", "text": "sy"}]), "ok", "easy"),
        (reply([{"type": "reasoning", "summary": [{"text": "hm"}]}]), "misrouted", ""),
        (reply(["easy"]), "ok", "easy"),
        (reply([]), "empty", ""),
        (reply({"text": "easy"}), "ok", "easy"),
        (reply("easy", thinking="hm"), "ok", "easy"),
        (reply(None, reasoning=None, reasoning_details=[{"type": "reasoning.text", "text": "hm"}]), "misrouted", ""),
        (reply(None, "tool_calls", tool_calls=[{"id": "1", "function": {"name": "f"}}]), "empty", ""),
        (reply("medium", None), "ok", "medium"),
        # as Mistral, Anthropic and Gemini name the same ends
        (reply("medium", "model_length"), "truncated", ""),
        (reply("medium", "max_tokens"), "truncated", ""),
        (reply("medium", "MAX_TOKENS"), "truncated", ""),
        (reply("medium", "SAFETY"), "filtered", ""),
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


def stream_of(*deltas, finish="stop", done=True):
    chunks = [{"choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    chunks += [{"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]}]
    chunks += [{"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 4}}]
    lines = [f"data: {json.dumps(chunk)}" for chunk in chunks] + [": keep-alive", "data: [DONE]"] * done
    return "\n\n".join(lines) + "\n\n"


def streamed(text):
    return read_reply(read_completion(text.encode()))


def test_a_streamed_answer_is_put_together():
    text = stream_of({"role": "assistant", "content": ""}, {"reasoning": "h"}, {"reasoning": "m"}, {"content": "ea"},
                     {"content": "sy"})  # fmt: skip
    got = streamed(text)
    assert (got.status, got.text, got.prompt_tokens, got.completion_tokens) == ("ok", "easy", 3, 4)
    assert got.whole == "<think>hm</think>easy" == streamed(text.replace("\n", "\r\n")).whole
    assert streamed(stream_of({"content": "ea"}, finish="length")).status == "truncated"
    for cut in ("\n".join(text.splitlines()[:6]), stream_of({"content": "ea"}, finish=None)):
        with pytest.raises(StreamError, match="broke off"):
            streamed(cut)
    for died in ('data: {"error": {"message": "engine died"}}', 'error: {"code": 400, "message": "engine died"}'):
        with pytest.raises(StreamError, match="engine died"):
            streamed(f"{died}\n\n{text}")
    assert streamed(text.replace("sy", "\u2028sy")).text == "ea\u2028sy"
    thought = {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}]}  # Magistral's deltas
    assert streamed(stream_of(thought, thought, {"content": "easy"})).whole == "<think>hmhm</think>easy"


@pytest.mark.parametrize(
    ("usage", "cached"),
    [
        ({}, 0),
        ({"prompt_tokens_details": {"cached_tokens": 8}}, 8),  # OpenAI, vLLM, xAI, Groq, Mistral
        ({"prompt_tokens_details": {"cached_tokens": 0}, "prompt_cache_hit_tokens": 7}, 7),  # DeepSeek
        ({"cached_tokens": 5}, 5),  # Moonshot
        ({"cache_read_input_tokens": 4}, 4),  # Anthropic
        ({"prompt_tokens_details": None}, 0),
        ({"prompt_tokens_details": {"cached_tokens": None}}, 0),
        ({"prompt_tokens_details": [3]}, 0),
        ({"prompt_tokens_details": {"cached_tokens": "many"}, "cached_tokens": float("nan")}, 0),
        ({"cached_tokens": -3}, 0),
        ({"cached_tokens": 10**9}, 11),
    ],
)
def test_tokens_from_a_cache(usage, cached):
    given = reply("easy")
    given["usage"] |= usage
    assert (read := read_reply(given)).cached_tokens == cached and (read.prompt_tokens, read.completion_tokens) == (
        11,
        7,
    )
    assert read_reply(given | {"usage": None}).cached_tokens == 0


@pytest.mark.parametrize("said", ["many", "", -7, float("inf"), float("nan"), [7], None])
def test_counts_that_are_none_cost_no_answer(said):
    given = reply("easy") | {"usage": {"prompt_tokens": said, "completion_tokens": "7"}}
    assert (read := read_reply(given)).text == "easy" and (read.prompt_tokens, read.completion_tokens) == (0, 7)
    assert read_reply(given | {"usage": said}).completion_tokens == 0
    assert read_completion(b"\xef\xbb\xbf" + json.dumps(given | {"usage": None}).encode())["choices"]
