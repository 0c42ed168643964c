"""One OpenAI-compatible endpoint: limits, deadlines, and what its answers and failures mean. agents/pool.py retries.

It is `openai`'s own aiohttp client, without the request building on top of it that costs as much CPU again; with its
cap on connections lifted, and idle connections dropped before the usual server does (vLLM's uvicorn waits 5 s), so that
none is reused as it closes.
"""

import asyncio
import json
import os
import re
import time
from dataclasses import dataclass, field, replace

import httpx2
import openai

from agents.limits import Gate, Pace, retry_after
from agents.reply import Reply, complaint, join_stream, read_reply, room_left
from errors import UserError
from progress import say

FATAL = (401, 402, 404)  # wrong key, no credit, unknown model: the next question would fare no better
CONGESTED = (429, 503)
TOO_LONG = ("context length", "context_length", "context window", "context size", "too long", "completion tokens")
REFUSALS = 20  # so many refusals and not one answer: the request itself is wrong, not the questions
SUSPECT = 5  # so many failures in a row and no answer: the endpoint is in trouble, not the questions
CONNECT = 30.0  # seconds for a connection, and for small questions
KEEPALIVE = 4.0  # seconds, below the 5 s after which uvicorn closes an idle connection
MAX_DOUBLED = 4  # times that a deadline is doubled at most
LEAST_ROOM = 256  # fewer tokens than this for an answer are not worth a call
SILENT_CUT = 16, 20_000  # so many characters a token, in a prompt of so many: no language; the server cut it
WAITING = re.compile(r"^vllm:num_requests_waiting(?:\{[^}]*\})? ([\d.eE+-]+)", re.MULTILINE)
TOKEN_KEYS = ("max_tokens", "max_completion_tokens")


@dataclass
class EndpointConfig:
    base_url: str | list[str]
    """Address up to and including /v1, e.g. http://localhost:8000/v1. Several addresses of equal servers: a list;
    the settings below then hold for each of them."""
    model: str
    """Model name as the endpoint knows it (GET /v1/models lists it)."""
    api_key_env: str = ""
    """Name of the environment variable that holds the API key; empty for a server that wants none. The key itself is
    never written anywhere."""
    concurrency: int = 64
    """Requests in flight at most. Congestion (429, 503, a missed deadline) lowers the limit, answers raise it again."""
    requests_per_minute: int | None = None
    """Cap of the host's plan; null for none."""
    tokens_per_minute: int | None = None
    """Likewise, prompt and answer together."""
    watch_queue: float = 0.0
    """Seconds between two looks at vLLM's /metrics: while requests wait there, fewer are sent. 0: never."""
    timeout: float = 300.0
    """Seconds for connecting and for waiting in the server's queue, part of every call's deadline."""
    min_tokens_per_second: float = 10.0
    """Slowest speed of one answer: the rest of the deadline is max_tokens at this speed. Doubled after a miss."""
    retries: int = 8
    """Further tries after a failure of the connection or the server, before the question (or the run) is given up."""
    backoff: float = 1.0
    """Seconds before the first further try; doubles each time, with jitter. Retry-After goes before it."""
    max_backoff: float = 60.0
    """Longest pause between two tries, in seconds (a longer Retry-After is still obeyed)."""
    price_prompt: float = 0.0
    """Price of a million prompt tokens, in the currency of `max_cost`."""
    price_completion: float = 0.0
    """Price of a million tokens of answers and thoughts."""
    extra_body: dict = field(default_factory=dict)
    """Further fields of every request body, e.g. {chat_template_kwargs: {enable_thinking: true}}."""


def check_endpoints(configs):
    """Raises UserError for what is wrong with {name: EndpointConfig} on paper, before anything is asked."""
    for name, endpoint in configs.items():
        if endpoint.concurrency < 1:
            raise UserError(f"config key endpoints.{name}.concurrency must be at least 1, not {endpoint.concurrency}")
        for url in [endpoint.base_url] if isinstance(endpoint.base_url, str) else endpoint.base_url or [""]:
            if not url.startswith(("http://", "https://")):
                raise UserError(f"config key endpoints.{name}.base_url must be an http(s) address, not {url}")
            if "@" in url or "?" in url:  # it would be written into config.yaml and shown in messages
                raise UserError(f"config key endpoints.{name}.base_url must not hold a key; name it in api_key_env")


@dataclass
class Traits:
    """How an endpoint wants to be asked; agents/probe.py finds out."""

    token_key: str = ""
    stream: bool = False
    prefilled: bool = False


class Failed(Exception):
    """A try that brought no answer. pause: seconds that the server asks to wait. fatal: it will not get better."""

    def __init__(self, why, pause=None, congested=False, late=False, fatal=False):
        super().__init__(why)
        self.why, self.pause, self.congested, self.late, self.fatal = why, pause, congested, late, fatal


class Refused(Exception):
    """An HTTP status of 400 or more: the server's own words in one line, never with the key in them."""

    def __init__(self, status, words, code, headers):
        super().__init__(words)
        self.status, self.words, self.code, self.headers = status, words, code, headers


class Malformed(Exception):
    """HTTP 200, but no chat completion."""


class Endpoint:
    """`ask(body) -> Reply`, one try at one server, within its limits.

    proven: whether it is known to have answered before (a resumed run). prober: `async prober(endpoint, body) ->
    Traits`, called once, before the first question.
    """

    def __init__(self, name, cfg, proven=False, prober=None):
        self.name, self.cfg, self.proven, self.prober = name, cfg, proven, prober
        self.where = f"endpoint {name} at {cfg.base_url}"
        self.key = _api_key(name, cfg)
        self.gate = Gate(cfg.concurrency)
        self.requests, self.tokens = Pace(cfg.requests_per_minute), Pace(cfg.tokens_per_minute)
        self.calls = self.retried = self.refusals = self.troubles = self.completion_tokens = 0
        self.last_answer, self.away_until, self.broken = -1.0, 0.0, ""  # times: time.monotonic()
        self.traits, self.probing, self.watcher = None if prober else Traits(), None, None
        # 0 is aiohttp's "no limit"; None would be its default of 100
        limits = httpx2.Limits(max_connections=0, keepalive_expiry=KEEPALIVE)
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self.key or 'none'}"}
        patience = httpx2.Timeout(None, connect=CONNECT)
        self.http = openai.DefaultAioHttpClient(headers=headers, limits=limits, timeout=patience)
        self.url = httpx2.URL(cfg.base_url.rstrip("/") + "/chat/completions")  # parsed once

    async def ask(self, body, patience=0):
        """POST /chat/completions once. patience: how often the deadline is doubled. The caller holds a place in `gate`.

        Returns a Reply for whatever the server decided about this question; raises Failed for everything else.
        """
        episode = self.gate.episode
        try:
            await self._know(body)
            return await self._answer(body, patience)
        except TimeoutError:
            self.gate.congested(episode)
            failure = Failed(f"no answer within {self.deadline(body, patience):g} s", late=True)
        except Refused as error:
            congested = error.status in CONGESTED
            if congested:
                self.gate.congested(episode)
            elif error.status < 500 and error.status != 408:
                return self._refused(error)
            failure = Failed(error.words, retry_after(error.headers), congested)
        except httpx2.RequestError as error:  # of the transport; or a redirect loop, a body that cannot be decoded
            failure = Failed(_cause(error))
        except Malformed as error:
            failure = Failed(str(error))
        self.retried, self.troubles = self.retried + 1, self.troubles + (not failure.congested)
        raise failure

    async def post(self, body, seconds, read):
        """read(completion), the JSON of the answer. Raises Refused, Malformed, TimeoutError, httpx2.RequestError."""
        async with asyncio.timeout(seconds):
            response = await self.http.post(self.url, content=json.dumps(body, ensure_ascii=False).encode())
        return self._read(response, lambda: read(join_stream(response.text) if body.get("stream") else response.json()))

    async def models(self):
        """What GET /models says. Raises like `post`."""
        async with asyncio.timeout(CONNECT):  # a server that fails here may close the connection: none is to be reused
            response = await self.http.get(self.url.join("../models"), headers={"Connection": "close"})
        return self._read(response, response.json)

    def _read(self, response, read):
        if response.status_code >= 400:
            raise Refused(response.status_code, *complaint(response, self.key), response.headers)
        try:
            return read()
        except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            words = f"the answer is no chat completion ({type(error).__name__}: {error})"
            raise Malformed(words.replace(self.key, "***") if self.key else words) from None

    def deadline(self, body, patience=0):
        """Seconds that a call may take."""
        tokens = next((body[key] for key in TOKEN_KEYS if key in body), 0)
        return (self.cfg.timeout + tokens / self.cfg.min_tokens_per_second) * 2 ** min(patience, MAX_DOUBLED)

    async def is_there(self):
        """Whether anything speaks HTTP at the address."""
        try:
            await self.models()
        except (httpx2.TransportError, TimeoutError):
            return False
        except (Refused, Malformed, httpx2.RequestError):
            pass
        return True

    async def close(self):
        for task in (self.probing, self.watcher):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        await self.http.aclose()

    def shaped(self, body, traits):
        """The body as this endpoint wants it."""
        body = body | self.cfg.extra_body
        for key in TOKEN_KEYS:
            if traits.token_key and key != traits.token_key and key in body:
                body[traits.token_key] = body.pop(key)
        if traits.stream:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        return body

    async def _know(self, body):
        """Probe the endpoint and watch its queue, if that is wanted and not yet done. All questions share one probe."""
        if self.watcher is None and self.cfg.watch_queue:
            self.watcher = asyncio.create_task(self._watch())
        while self.traits is None:
            if self.probing is None or self.probing.done():
                self.probing = asyncio.create_task(self.prober(self, body))
            self.traits = await asyncio.shield(self.probing)

    async def _answer(self, body, patience):
        body = self.shaped(body, self.traits)
        letters = sum(len(message["content"]) for message in body["messages"])
        guess = letters // 4 + (self.completion_tokens // self.calls if self.calls else 0)
        await self.requests.take(1)
        await self.tokens.take(guess)
        begin, limit = time.monotonic(), self.deadline(body, patience)

        def read(completion):
            return read_reply(completion, time.monotonic() - begin, self.traits.prefilled, self.name)

        try:
            reply = await self.post(body, limit, read)
        except Refused as error:
            key = next((key for key in TOKEN_KEYS if key in body), None)
            room = room_left(error.words) if key and _is_too_long(error) else None
            if room is None or room < min(LEAST_ROOM, body[key]) or room >= body[key]:
                raise
            reply = await self.post(body | {key: room}, limit, read)  # the prompt fits, the answer may be shorter
        self.tokens.correct(reply.prompt_tokens + reply.completion_tokens - guess)
        self.calls, self.completion_tokens = self.calls + 1, self.completion_tokens + reply.completion_tokens
        self.proven, self.troubles, self.last_answer = True, 0, time.monotonic()
        self.gate.answered()
        per_token, long = SILENT_CUT
        if letters > long and 0 < reply.prompt_tokens * per_token < letters:
            words = f"the server counts {reply.prompt_tokens} tokens in {letters} characters: it cuts long prompts"
            return replace(reply, status="too_long", text="", detail=words)
        return reply

    def price(self, prompt_tokens, completion_tokens):
        return (prompt_tokens * self.cfg.price_prompt + completion_tokens * self.cfg.price_completion) / 1e6

    def _refused(self, error):
        """The Reply for a 4xx; raises Failed where the next question would be refused as well."""
        if error.status in FATAL or (error.status == 403 and not self.proven):
            key = f" (key from ${self.cfg.api_key_env})" if self.cfg.api_key_env else " (no api_key_env is set)"
            raise Failed(f"says {error.words}{key if error.status in (401, 403) else ''}", fatal=True)
        if error.code == "content_filter":
            return Reply("filtered", detail=error.words)
        if _is_too_long(error):
            return Reply("too_long", detail=error.words)
        self.refusals += 1
        if self.refusals >= REFUSALS and not self.proven:
            raise Failed(f"refused its first {REFUSALS} requests; the last time it said {error.words}", fatal=True)
        return Reply("refused", detail=error.words)

    async def _watch(self):
        """Follow vLLM's queue: while it is there in three looks in a row, its length is taken off the limit, once."""
        url, looks = self.cfg.base_url.removesuffix("/").removesuffix("/v1") + "/metrics", 0
        while True:
            await asyncio.sleep(self.cfg.watch_queue)
            try:
                async with asyncio.timeout(10):
                    found = WAITING.findall((await self.http.get(url)).text)
            except (httpx2.HTTPError, TimeoutError):
                continue  # the questions themselves will show whether the server is gone
            if not found:
                return say(f"{url} does not tell vllm:num_requests_waiting; its queue is not watched")
            waiting = sum(map(float, found))
            looks = looks + 1 if waiting else 0
            self.gate.held = looks >= 3
            if looks == 3:
                self.gate.cut_to(self.gate.in_flight - waiting)


def _is_too_long(error):
    return error.status == 413 or any(sign in f"{error.words} {error.code}".lower() for sign in TOO_LONG)


def _api_key(name, cfg):
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


def _cause(error):
    """The innermost reason: the transport reports a refused connection as a time-out."""
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split()) or type(error).__name__
