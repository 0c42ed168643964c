"""What servers say when they do not answer: the kind of failure, the words that are shown, and the room that is left.

The texts are those of the servers named beside them, with other numbers.
"""

import json

import pytest
from aiohttp import web

from agents.complaints import kind_of, read_refusal, room_left
from tests.agents.test_client import body, chat
from tests.support.scripted_endpoint import Server, error, reply

ROOM = 4096 - 2000 - 64
LEFT = {  # asked for 3000 tokens in a window of 4096: the tokens that are asked for instead
    # vLLM 0.32, 0.19; then with the prompt in view: 0.20, older, 0.9, before
    "max_tokens=3000 cannot be greater than max_model_len=2048. Please request fewer output tokens.": 2048,
    "max_tokens=3000cannot be greater than max_model_len=max_total_tokens=2048. Please request fewer output tokens. "
    "(parameter=max_tokens, value=3000)": 2048,
    "This model's maximum context length is 4096 tokens. However, you requested 3000 output tokens and your prompt "
    "contains 2000 input tokens, for a total of 5000 tokens. Please reduce the length of the input prompt": ROOM,
    "You passed 2000 input tokens and requested 3000 output tokens. However, the model's context length is only 4096 "
    "tokens, resulting in a maximum input length of 1096 tokens. Please reduce the length of the input prompt.": ROOM,
    "'max_tokens' or 'max_completion_tokens' is too large: 3000. This model's maximum context length is 4096 tokens "
    "and your request has 2000 input tokens (3000 > 4096 - 2000).": ROOM,
    "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens (2000 in the messages, "
    "3000 in the completion). Please reduce the length of the messages or completion.": ROOM,
    "litellm.ContextWindowExceededError: litellm.BadRequestError: Hosted_vllmException - This model's maximum context "
    "length is 4096 tokens. However, you requested 3000 output tokens and your prompt contains 2000 input tokens": ROOM,
    "This model's maximum context length is 4096 tokens, however you requested 5000 tokens (2000 in your prompt; 3000 "
    "for the completion). Please reduce your prompt; or completion length.": ROOM,  # OpenAI
    "max_tokens is too large: 3000. This model supports at most 2000 completion tokens, whereas": 2000,
    "Requested token count exceeds the model's maximum context length of 4096 tokens. You requested a total of 5000 "
    "tokens: 2000 tokens from the input messages and 3000 tokens for the completion.": ROOM,  # SGLang
    "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 2000 `inputs` tokens and 3000 "
    "`max_new_tokens`": ROOM,  # TGI, Together
    "This endpoint's maximum context length is 4096 tokens. However, you requested about 5000 tokens (2000 of text "
    "input, 12 of tool input, 3000 in the output). Please reduce the length of either one": ROOM,  # OpenRouter
    "input length and `max_tokens` exceed context limit: 2000 + 3000 > 4096, decrease input length": ROOM,  # Anthropic
    "max_tokens: 3000 > 2048, which is the maximum allowed number of output tokens for claude-3-haiku": 2048,
    "Invalid max_tokens value, the valid range of max_tokens is [1, 2048]": 2048,  # DeepSeek
    "InternalError.Algo.InvalidParameter: Range of max_tokens should be [1, 2048]": 2048,  # DashScope
    "`max_tokens` must be less than or equal to `2048`, the maximum value for this model": 2048,  # Groq
    "The maximum tokens you requested exceeds the model limit of 2048.": 2048,  # Bedrock
    "Unable to submit request because it has a maxOutputTokens value of 3000 but the supported range is from 1 "
    "(inclusive) to 2049 (exclusive).": 2048,  # Gemini
}
NO_ROOM = (
    "This model's maximum context length is 4096 tokens. However, your messages resulted in 9000 tokens.",  # OpenAI
    "Input tokens exceed the configured limit of 4096 tokens. Your messages resulted in 9000 tokens.",
    "This model's maximum context length is 4096 tokens. However, your request has 9000 input tokens.",  # vLLM
    "The decoder prompt (length 9000) is longer than the maximum model length of 4096.",
    "The input (9000 tokens) is longer than the model's context length (4096 tokens).",  # SGLang
    "Input length (9000 tokens) exceeds the maximum allowed length (4095 tokens). Use a shorter input",
    "request (9000 tokens) exceeds the available context size (4096 tokens), try increasing it",  # llama.cpp
    "the request exceeds the available context size, try increasing it",
    "Requested tokens (9000) exceed context window of 4096",  # llama-cpp-python
    "Input validation error: `inputs` must have less than 4096 tokens. Given: 9000",  # TGI
    "Trying to keep the first 9000 tokens when context the overflows. However, the model is loaded with context length "
    "of only 4096 tokens, which is not enough.",  # LM Studio
    "the prompt is longer than the context length currently available to the model",  # Ollama
    "prompt is too long: 9000 tokens > 4096 maximum",  # Anthropic
    "The input token count (9000) exceeds the maximum number of tokens allowed (4096).",  # Gemini
    "Prompt contains 9000 tokens and 0 draft tokens, too large for model with 4096 maximum context length",  # Mistral
    "The prompt is too long: 9000, model maximum context length: 4096",  # Fireworks
    "This model's maximum prompt length is 4096 but the request contains 9000 tokens.",  # xAI
    "Please reduce the length of the messages or completion. Current length is 9000 while limit is 4096",  # Cerebras
    "Range of input length should be [1, 4096]",  # DashScope
    "Input is too long for requested model.",  # Bedrock
    "too many tokens: size limit exceeded by 4904 tokens. Try using shorter or fewer inputs",  # Cohere
    "prompt token count of 9000 exceeds the limit of 4096",  # Copilot
    "Request too large for model `m` on tokens per minute (TPM): Limit 6000, Requested 9000, please reduce",  # Groq
    "<html><head><title>413 Request Entity Too Large</title></head></html>",  # nginx
)
OTHERWISE = {  # these speak of length, or of limits, and are none of the above
    "upstream took too long to respond": "passing",
    "the queue wait exceeds the limit": "passing",
    "CUDA out of memory while allocating the KV cache for context length 4096": "passing",
    "Rate limit reached on tokens per min (TPM): Limit 30000, Used 29000, Requested 2000": "congested",
    "m is temporarily rate-limited upstream. Please retry shortly": "congested",
    "Insufficient Balance": "locked",
    "Content Exists Risk": "filtered",
}


@pytest.mark.parametrize(("words", "room"), [*LEFT.items(), *((words, None) for words in NO_ROOM)])
def test_an_answer_is_shortened_where_the_prompt_fits_whatever_the_status(words, room):
    assert room_left(words) == room
    for status in (200, 400, 500):

        def answer(asked, status=status):
            return error(status, words) if asked.body["max_tokens"] == 3000 else "easy"

        with Server(answer) as server:
            (got,), endpoint = chat(server, [body() | {"max_tokens": 3000}])
        assert got.status == ("ok" if room else "too_long") and endpoint.retried == 0
        assert [asked.body["max_tokens"] for asked in server.asked] == ([3000, room] if room else [3000])


@pytest.mark.parametrize(("words", "kind"), OTHERWISE.items())
def test_words_that_are_no_overflow(words, kind):
    assert kind_of(500, words) == kind and room_left(words, 3000, 8000) is None


class Vllm:
    """The window of vLLM 0.20: a prompt that does not fit beside the answer is counted to the first token too many.
    newer: 0.32, which cuts an answer to what is left by itself. Four characters of the prompt make `density` tokens."""

    def __init__(self, window, newer=False, density=1):
        self.window, self.newer, self.density = window, newer, density

    def __call__(self, asked):
        longest, prompt = asked.body["max_tokens"], sum(len(m["content"]) for m in asked.body["messages"])
        prompt = prompt * self.density // 4
        if longest > self.window:
            said = f"max_tokens={longest} cannot be greater than max_model_len={self.window}."
            return error(400, f"{said} Please request fewer output tokens.", type="BadRequestError", code=400)
        if prompt + longest <= self.window or (self.newer and prompt < self.window):
            return reply("easy", prompt_tokens=prompt, completion_tokens=longest)
        least = self.window - longest + 1
        return error(
            400,
            f"This model's maximum context length is {self.window} tokens. However, you requested {longest} output "
            f"tokens and your prompt contains at least {least} input tokens, for a total of at least "
            f"{self.window + 1} tokens. Please reduce the length of the input prompt or the number of requested output "
            f"tokens. (parameter=input_tokens, value={least})",
        )


@pytest.mark.parametrize("density", [1, 1.3, 2, 3.5])
@pytest.mark.parametrize("newer", [False, True])
def test_the_prompts_length_is_only_known_to_be_at_least_something(newer, density, capsys):
    """Prompts of 1 to 3.5 tokens for four characters, and more asked for than the window: all are answered."""
    long = body() | {"max_tokens": 32768}
    with Server(Vllm(4096, newer, density)) as server:
        (first, second), _ = chat(server, [long, long], concurrency=1)
    assert first.status == second.status == "ok"
    assert first.completion_tokens > (4096 - first.prompt_tokens) / 2  # no room is given away
    assert len(server.asked) <= 2 * 5 and max(a.body["max_tokens"] for a in server.asked[-2:]) <= 4096
    assert capsys.readouterr().err.count("answers are shortened to fit") == 1


def test_a_prompt_that_fills_the_window_is_too_long():
    long = body()
    long["messages"][-1]["content"] += " word" * 4000
    with Server(Vllm(4096)) as server:
        (got,), _ = chat(server, [long | {"max_tokens": 1024}])
    assert got.status == "too_long" and len(server.asked) <= 5


# --- the body decides, and its words are shown ---

BODIES = [  # HTTP status, body, kind, a part of the words
    (200, {"error": {"message": "Rate limit exceeded: free-models-per-min", "code": 429}}, "congested", "free-models"),
    (200, {"error": {"message": "Provider returned error", "code": 502, "metadata": {"raw": "upstream is down"}}},
     "passing", "upstream is down"),
    (200, {"choices": None, "base_resp": {"status_code": 1008, "status_msg": "insufficient balance"}}, "locked",
     "insufficient balance"),
    (200, {"choices": None}, "passing", '"choices": null'),
    (200, {"id": "x", "choices": [{"message": None}]}, "passing", "no chat completion"),
    (200, "<!DOCTYPE html><html><head><title>Sign in &amp; go</title></head><body>…</body></html>", "passing",
     "a web page, 'Sign in & go'"),
    (200, "", "passing", "an empty body"),
    (200, [], "passing", "an empty body"),
    (200, "data: [DONE]", "passing", "broke off"),
    (200, {"object": "error", "message": "no such model", "code": 404}, "locked", "no such model"),
    (400, [{"error": {"code": 400, "message": "API key not valid", "status": "INVALID_ARGUMENT"}}], "refused",
     "HTTP 400: API key not valid"),
    (400, [{"error": {"code": 429, "message": "slow down", "status": "RESOURCE_EXHAUSTED"}}], "congested", "slow down"),
    (400, {"message": "Too many requests, please wait", "__type": "ThrottlingException"}, "congested", "please wait"),
    (429, {"error": {"message": "You exceeded your quota", "type": "insufficient_quota", "code": "insufficient_quota"}},
     "locked", "exceeded your quota"),
    (500, {"error": {"message": "temperature: bad value", "type": "invalid_request_error"}}, "refused", "bad value"),
    (500, {"detail": "Internal error", "status": 500}, "passing", "Internal error"),
    (400, {"error": {"code": "token_limit_exceeded", "message": "over your plan"}}, "refused", "over your plan"),
    (503, {"error": {"message": "Loading model", "type": "unavailable_error", "code": 503}}, "congested", "Loading"),
    (529, {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}, "congested", "Overloaded"),
    (502, "<html><head><title>502 Bad Gateway</title></head></html>", "passing", "502 Bad Gateway"),
    (404, "404 page not found", "locked", "page not found"),
    (404, {"success": False, "errors": [{"code": 7003, "message": "Could not route"}]}, "locked", "Could not route"),
    (422, {"detail": [{"loc": ["body", "seed"], "msg": "Extra inputs are not permitted", "input": 7}]}, "refused",
     "body.seed: Extra inputs"),
    (413, "", "refused", "HTTP 413"),
    (408, "", "passing", "HTTP 408"),
    (409, "", "passing", ""),
    (425, "", "passing", ""),
    (424, {"error": "Request failed during generation: Server error", "error_type": "generation"}, "passing", "failed"),
    (499, "", "passing", ""),
    (403, {"error": {"message": "Input was flagged", "metadata": {"reasons": ["violence"]}}}, "filtered", "flagged"),
]  # fmt: skip


@pytest.mark.parametrize(("status", "given", "kind", "words"), BODIES)
def test_the_body_decides_and_the_servers_words_are_shown(status, given, kind, words):
    content = given.encode() if isinstance(given, str) else json.dumps(given).encode()
    got = read_refusal(status, content)
    if given == "data: [DONE]":  # an empty stream
        got = read_refusal(200, b"the stream broke off")
    assert got.kind == kind and words in str(got)


@pytest.mark.parametrize(("status", "given", "kind", "words"), [row for row in BODIES if row[0] == 200])
def test_what_comes_as_200_and_is_no_answer_is_asked_again(status, given, kind, words):
    text = given if isinstance(given, str) else json.dumps(given)
    with Server(lambda asked: web.Response(text=text) if asked.tries == 0 else "easy") as server:
        (got,), endpoint = chat(server, [body()])
    assert got.text == "easy" and endpoint.retried == 1
    with Server(lambda asked: web.Response(text=text)) as server:
        (stopped,), _ = chat(server, [body()], has_answered=False)
    assert words in str(stopped) and "KeyError" not in str(stopped)
