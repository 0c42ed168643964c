"""One OpenAI-compatible server: how a question is sent, and what its answers and failures mean. agents/pool.py retries.

`openai.AsyncOpenAI` sends, streams and types errors, over its aiohttp transport. Its own retries are off: the pool
has to see every 429 and 5xx to slow down, to ask another server and to keep deadlines. A call ends in a `Reply` of
status

ok           an answer
truncated    finish_reason "length": never an answer, however good its beginning looks
filtered     the host's content filter cut it
misrouted    reasoning, but no answer after it
empty        neither
too_long     the server says that the prompt does not fit its context
refused      any other 4xx
transport    this question failed `retries` times while the endpoint answered others
"""

import asyncio
import contextlib
import os
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, replace

from agents.limits import AdaptiveLimit, EndpointConfig, RateLimit, retry_after
from errors import UserError

ANSWERED = ("ok", "truncated", "filtered", "misrouted", "empty")  # the server did what it could: worth keeping
FATAL = (401, 402, 404)  # wrong key, no credit, unknown model: the next question would fare no better
CONGESTED = (429, 503)
BROKE_OFF = ("abort", "error", "insufficient_system_resource")  # finish_reason of vLLM, OpenRouter, DeepSeek
TOKEN_KEYS = ("max_tokens", "max_completion_tokens")

MAX_REFUSALS = 20  # N refusals and not one answer: the request itself is wrong, not the questions
CONNECT = 30.0  # seconds for a connection, and for small questions
KEEPALIVE = 4.0  # seconds, below the 5 s after which uvicorn (vLLM) closes an idle connection
TOKENS_PER_SECOND = 10.0  # slowest speed of one answer: max_tokens at this speed is part of its deadline
MAX_DOUBLINGS = 4  # of a deadline, one after each miss
SILENT_CUT = 16, 20_000  # N characters a token, in a prompt of M characters: no language; the server cut it

# the words of servers that find a request too long, and the numbers in them
TOO_LONG = ("context length", "context_length", "context window", "context size", "too long", "completion tokens")
WINDOW = re.compile(r"(?:context (?:length|window|size)|max_model_len|n_ctx)\D{0,20}?(\d{3,})", re.IGNORECASE)
PROMPT = re.compile(
    r"(\d+) (?:tokens )?(?:in|from|of) (?:the|your) (?:input |prompt )?(?:messages|prompt|input)|(\d+) input tokens"
    r"|prompt contains (?:at least )?(\d+)",
    re.IGNORECASE,
)
COMPLETION_CAP = re.compile(r"at most (\d+) completion tokens", re.IGNORECASE)
SPARE = 64  # tokens left free between what a server says and what is then asked for: templates are counted in odd ways
LEAST_ROOM = 256  # fewer tokens than this for an answer are not worth a call
ECHO = re.compile(r"""['"]input['"]:.*""")  # such a complaint as text (vLLM): what follows is the request's


@dataclass
class RequestQuirks:
    """How a server wants to be asked; agents/probe.py finds out.

    token_key: the name it wants for max_tokens, "" for any. stream: it answers in streams only. prefilled: its chat
    template writes the opening <think>, so that answers hold the closing tag alone.
    """

    token_key: str = ""
    stream: bool = False
    prefilled: bool = False


@dataclass(frozen=True)
class Reply:
    """What one question led to.

    text: the answer without its thought. Tokens as the server counts them, thought included. seconds: of the try that
    succeeded. detail: the server's own words, when there is no answer. endpoint: the name of who answered. whole: all
    that was generated, whatever the status, the thought in <think> tags. model: as the server names it.
    """

    status: str
    text: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    detail: str = ""
    endpoint: str = ""
    whole: str = ""
    model: str = ""


class CallError(Exception):
    """A call without an answer that can be used; its words hold neither key nor question.

    status: HTTP's; 0 if nothing was reached, 200 if what came was no chat completion. code: the server's own. wait:
    seconds that it asks to wait. late: the deadline was missed. fatal: no question to this server will fare better.
    """

    def __init__(
        self,
        words: str,
        status: int = 0,
        code: str | None = None,
        wait: float | None = None,
        late: bool = False,
        fatal: bool = False,
    ):
        super().__init__(words)
        self.status, self.code, self.wait, self.late, self.fatal = status, code, wait, late, fatal

    @property
    def congested(self) -> bool:
        return self.status in CONGESTED

    @property
    def too_long(self) -> bool:
        return self.status == 413 or any(sign in f"{self} {self.code}".lower() for sign in TOO_LONG)


class Endpoint:
    """`ask(body) -> Reply`, one try at one server, within its limits.

    url: the server, one of cfg.base_url (the first, if none is given). has_answered: whether it is known to have done
    so before (a resumed run). prober: `async prober(endpoint, body) -> RequestQuirks`, called once, before the first
    question.
    """

    def __init__(
        self,
        name: str,
        cfg: EndpointConfig,
        url: str = "",
        has_answered: bool = False,
        prober: Callable[["Endpoint", dict], Awaitable[RequestQuirks]] | None = None,
    ):
        import httpx2
        import openai  # here: it takes 0.7 s to load, and --help does without

        self.name, self.cfg, self.url, self.key = name, cfg, url or cfg.base_url[0], _api_key(name, cfg)
        self.where = f"endpoint {name} at {self.url}"

        # what it may be asked, how it wants to be, and what it has done so far
        self.limit = AdaptiveLimit(cfg.concurrency)
        self.requests, self.tokens = RateLimit(cfg.requests_per_minute), RateLimit(cfg.tokens_per_minute)
        self.has_answered, self.prober, self.probing = has_answered, prober, None
        self.quirks = None if prober else RequestQuirks()
        self.calls = self.retried = self.refusals = self.failures_in_row = self.completion_tokens = 0
        self.last_answer, self.away_until, self.broken = -1.0, 0.0, ""  # times: time.monotonic()

        # 0 connections is aiohttp's "no limit" (None: its default of 100); deadlines are ours, but that for connecting
        limits = httpx2.Limits(max_connections=0, keepalive_expiry=KEEPALIVE)
        http = openai.DefaultAioHttpClient(limits=limits, timeout=httpx2.Timeout(None, connect=CONNECT))
        self.openai = openai.AsyncOpenAI(base_url=self.url, api_key=self.key or "none", max_retries=0, http_client=http)
        self.openai.organization = self.openai.project = None  # the user's environment may name them for another host

    async def ask(self, body: dict, doublings: int = 0) -> Reply:
        """Send a question once. doublings: how often its deadline is doubled. The caller holds a place in `limit`.

        Returns a Reply for whatever the server decided about this question; raises CallError for everything else.
        """
        cuts = self.limit.cuts
        try:
            await self._probe_once(body)
            return await self._answer(body, doublings)
        except TimeoutError:
            failure = CallError(f"no answer within {self.deadline(body, doublings):g} s", late=True)
        except CallError as error:
            if 400 <= error.status < 500 and error.status not in (408, 429):
                return self._refused(error)
            failure = error

        # the server was busy, or it is in trouble: fewer at a time then, or none for a while (agents/pool.py)
        if failure.late or failure.congested:
            self.limit.congested(cuts)
        self.retried, self.failures_in_row = self.retried + 1, self.failures_in_row + (not failure.congested)
        raise failure

    async def post(self, body: dict, seconds: float, read: Callable[[dict], object]) -> object:
        """Returns read(completion), the JSON of the answer. Raises CallError, TimeoutError."""
        import httpx2
        from openai import AsyncStream

        with self._our_errors():
            async with asyncio.timeout(seconds):
                if body.get("stream"):
                    options = {"stream": True, "stream_cls": AsyncStream[object]}
                    stream = self.openai.post("/chat/completions", body=body, cast_to=object, **options)
                    async with await stream as chunks:
                        return read(await join_chunks(chunks))
                # the response itself: its JSON may hold what the library's types do not know, such as `reasoning`
                response = await self.openai.post("/chat/completions", body=body, cast_to=httpx2.Response)
                return read(response.json())

    async def models(self) -> object:
        """Returns the JSON of GET /models. Raises like `post`."""
        import httpx2

        closing = {"headers": {"Connection": "close"}}  # a server that fails here may close it: none is to be reused
        with self._our_errors():
            async with asyncio.timeout(CONNECT):
                return (await self.openai.get("/models", cast_to=httpx2.Response, options=closing)).json()

    @contextlib.contextmanager
    def _our_errors(self) -> Iterator[None]:
        """Turn what openai raises, and what an answer of another shape leads to, into CallError: never chained to the
        original, which may hold the key."""
        import openai

        try:
            yield
        except openai.APIStatusError as error:
            said, wait = self._keyless(complaint(error.body))[:300], retry_after(error.response.headers)
            words = f"HTTP {error.status_code}: {said}" if said else f"HTTP {error.status_code}"
            raise CallError(words, error.status_code, error.code and self._keyless(error.code), wait) from None
        except openai.APIConnectionError as error:
            raise CallError(self._keyless(_innermost(error))) from None
        except openai.APIError as error:  # in the middle of a stream
            raise CallError(self._keyless(f"the server broke off: {error.message}")[:300], 200) from None
        except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            words = f"the answer is no chat completion ({type(error).__name__}: {error})"
            raise CallError(self._keyless(words), 200) from None

    def _keyless(self, words: str) -> str:
        return words.replace(self.key, "***") if self.key else words

    def deadline(self, body: dict, doublings: int = 0) -> float:
        """Returns the seconds that a call may take."""
        tokens = next((body[key] for key in TOKEN_KEYS if key in body), 0)
        return (self.cfg.timeout + tokens / TOKENS_PER_SECOND) * 2 ** min(doublings, MAX_DOUBLINGS)

    async def is_there(self) -> bool:
        """Whether anything speaks HTTP at the address."""
        try:
            await self.models()
        except (CallError, TimeoutError) as error:
            return isinstance(error, CallError) and error.status > 0
        return True

    async def close(self) -> None:
        if self.probing is not None:
            self.probing.cancel()
            await asyncio.gather(self.probing, return_exceptions=True)
        await self.openai.close()

    def adapted(self, body: dict, quirks: RequestQuirks) -> dict:
        """Returns the request body as this server wants it."""
        body = body | self.cfg.extra_body
        for key in TOKEN_KEYS:
            if quirks.token_key and key != quirks.token_key and key in body:
                body[quirks.token_key] = body.pop(key)
        if quirks.stream:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        return body

    def price(self, prompt_tokens: int, completion_tokens: int) -> float:
        return (prompt_tokens * self.cfg.price_prompt + completion_tokens * self.cfg.price_completion) / 1e6

    async def _probe_once(self, body: dict) -> None:
        """Find out the server's quirks, if that is wanted and not yet done. All questions share one probe."""
        while self.quirks is None:
            if self.probing is None or self.probing.done():
                self.probing = asyncio.create_task(self.prober(self, body))
            self.quirks = await asyncio.shield(self.probing)

    async def _answer(self, body: dict, doublings: int) -> Reply:
        body = self.adapted(body, self.quirks)
        # wait for this minute's share; an answer's tokens are guessed before and corrected after it
        letters = sum(len(message["content"]) for message in body["messages"])
        guess = letters // 4 + (self.completion_tokens // self.calls if self.calls else 0)
        await self.requests.take(1)
        await self.tokens.take(guess)

        begin, seconds = time.monotonic(), self.deadline(body, doublings)

        def read(completion: dict) -> Reply:
            return read_reply(completion, time.monotonic() - begin, self.quirks.prefilled, self.name)

        try:
            reply = await self.post(body, seconds, read)
        except CallError as error:
            # the prompt may fit where prompt and answer together do not: then the answer may be shorter
            key = next((key for key in TOKEN_KEYS if key in body), None)
            room = room_left(str(error)) if key and error.too_long else None
            if room is None or room < min(LEAST_ROOM, body[key]) or room >= body[key]:
                raise
            reply = await self.post(body | {key: room}, seconds, read)

        # what this answer says about the server
        self.tokens.correct(reply.prompt_tokens + reply.completion_tokens - guess)
        self.calls, self.completion_tokens = self.calls + 1, self.completion_tokens + reply.completion_tokens
        self.has_answered, self.failures_in_row, self.last_answer = True, 0, time.monotonic()
        self.limit.answered()
        per_token, long = SILENT_CUT
        if letters > long and 0 < reply.prompt_tokens * per_token < letters:
            words = f"the server counts {reply.prompt_tokens} tokens in {letters} characters: it cuts long prompts"
            return replace(reply, status="too_long", text="", detail=words)
        return reply

    def _refused(self, error: CallError) -> Reply:
        """The Reply for a 4xx; raises CallError where the next question would be refused as well."""
        if error.status in FATAL or (error.status == 403 and not self.has_answered):
            key = f" (key from ${self.cfg.api_key_env})" if self.cfg.api_key_env else " (no api_key_env is set)"
            raise CallError(f"says {error}{key if error.status in (401, 403) else ''}", fatal=True)
        if error.code == "content_filter":
            return Reply("filtered", detail=str(error))
        if error.too_long:
            return Reply("too_long", detail=str(error))
        self.refusals += 1
        if self.refusals >= MAX_REFUSALS and not self.has_answered:
            raise CallError(f"refused its first {MAX_REFUSALS} requests; the last time it said {error}", fatal=True)
        return Reply("refused", detail=str(error))


def _api_key(name: str, cfg: EndpointConfig) -> str:
    if not cfg.api_key_env:
        return ""
    key = os.environ.get(cfg.api_key_env, "").strip()  # a file with Windows line ends leaves its \r
    if not key:
        raise UserError(f"endpoints.{name}.api_key_env names ${cfg.api_key_env}, which is not set")
    if not (key.isascii() and key.isprintable()):
        raise UserError(
            f"${cfg.api_key_env} (endpoints.{name}.api_key_env) is no API key: it holds other characters than ASCII"
        )
    return key


def _innermost(error: BaseException) -> str:
    """The reason in one line: openai says "Connection error.", the transport calls a refused connection a time-out."""
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split()) or type(error).__name__


# --- reading what a server sends ---


def read_reply(completion: dict, seconds: float = 0.0, prefilled: bool = False, endpoint: str = "") -> Reply:
    """Returns the Reply in the JSON of a chat completion; the thought is taken off wherever the server put it.

    vLLM names the field `reasoning` (older ones and DeepSeek `reasoning_content`); without a reasoning parser the
    thought stands in the text, often without its opening tag, because the chat template has already written that.
    prefilled: the server is known to do so, and a text without the closing tag is then a thought that never ends.
    Raises ValueError where the server itself says that it did not finish.
    """
    choice = completion["choices"][0]
    message, finish = choice["message"], choice.get("finish_reason")
    if finish in BROKE_OFF:
        raise ValueError(f"the server broke off ({finish})")

    # the answer is what follows the last thought; a thought that never ends leaves none
    whole = _with_thought(message, prefilled, finish)
    text = whole.rpartition("</think>")[2].strip()
    if "<think>" in text:
        text = ""

    # how it ended decides before what was said
    if finish == "length":
        status, text = "truncated", ""
    elif finish == "content_filter" or message.get("refusal"):
        status, text = "filtered", ""
    elif text:
        status = "ok"
    else:
        status = "misrouted" if "<think>" in whole else "empty"

    usage = completion.get("usage") or {}
    asked, spent = int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0)
    model = str(completion.get("model") or "")
    return Reply(status, text, asked, spent, round(seconds, 3), endpoint=endpoint, whole=whole, model=model)


def _with_thought(message: dict, prefilled: bool, finish: str | None) -> str:
    """The thought, wherever the server put it, as `<think>…</think>` before the answer; not closed if it was cut."""
    content = _valid(message.get("content") or "")
    thought = _valid(message.get("reasoning") or message.get("reasoning_content") or "")
    if thought:
        return f"<think>{thought}" + (f"</think>{content}" if content.strip() or finish != "length" else "")
    unopened = "<think>" not in content and (prefilled or "</think>" in content)
    return f"<think>{content}" if content and unopened else content


def _valid(text: str) -> str:
    """Without halves of surrogate pairs, which JSON may hold ("\\ud83d") and UTF-8 may not."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


async def join_chunks(chunks: AsyncIterator[dict]) -> dict:
    """Returns the completion that the chunks of a stream add up to. Raises ValueError if it breaks off."""
    message, finish, usage, model = {}, None, None, ""
    async for chunk in chunks:
        usage, model = chunk.get("usage") or usage, chunk.get("model") or model
        for choice in chunk.get("choices") or []:
            if choice.get("index", 0) == 0:
                for name in ("content", "reasoning", "reasoning_content", "refusal"):
                    if choice["delta"].get(name):
                        message[name] = message.get(name, "") + choice["delta"][name]
                finish = choice.get("finish_reason") or finish
    if finish is None:
        raise ValueError("the stream breaks off")
    return {"choices": [{"message": message, "finish_reason": finish}], "usage": usage, "model": model}


def room_left(words: str) -> int | None:
    """Returns the tokens that still fit behind the prompt, from the words of a server that found a request too long.

    None if it does not say, and then nothing can be done but to give the question up.
    """
    cap = COMPLETION_CAP.search(words)
    if cap:
        return int(cap.group(1))
    window, prompt = WINDOW.search(words), PROMPT.search(words)
    if not window or not prompt:
        return None
    return int(window.group(1)) - int(next(group for group in prompt.groups() if group)) - SPARE


def complaint(body: object) -> str:
    """Returns the message of an error body in one line, without the question: servers built on pydantic hand that back
    as the `input` that they complain about."""
    message = (body.get("message") or body.get("detail") or body) if isinstance(body, dict) else body or ""
    if isinstance(message, list) and all(isinstance(item, dict) for item in message):
        message = "; ".join(f"{'.'.join(map(str, item.get('loc') or ()))}: {item.get('msg')}" for item in message)
    return ECHO.sub("…", _valid(" ".join(str(message).split())))
