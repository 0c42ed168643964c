"""One async client for any OpenAI-compatible endpoint: bounded concurrency, retries, and typed outcomes.

It is the `openai` client over its aiohttp transport, with the transport's cap on connections lifted and idle
connections dropped before the usual server does (vLLM's uvicorn waits 5 s), so that none is reused as it closes.

What a call ends in (`Reply.status`):

    ok           an answer
    truncated    finish_reason "length": never an answer, however good its beginning looks
    filtered     the host's content filter cut it
    misrouted    reasoning, but no answer after it
    empty        neither
    too_long     the server says that the prompt does not fit its context
    refused      any other 4xx
    transport    this question failed `retries` times while the endpoint answered others

An endpoint that answers nobody, or that refuses everything, ends the run with a UserError that names its URL.
"""

import asyncio
import os
import random
import time
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime

import httpx2
import openai

from data.errors import UserError
from progress import say

ANSWERED = ("ok", "truncated", "filtered", "misrouted", "empty")  # the server did what it could: worth keeping

FATAL = (401, 402, 404)  # wrong key, no credit, unknown model: the next question would fare no better
CONGESTED = (429, 503)
TOO_LONG = ("context length", "context_length", "context window", "too long")
REFUSALS = 20  # so many refusals and not one answer: the request itself is wrong, not the questions
LOST = 8  # so many questions given up in a row: the endpoint is broken, not the questions
KEEPALIVE = 4.0  # seconds, below the 5 s after which uvicorn closes an idle connection


@dataclass
class EndpointConfig:
    base_url: str
    """Address up to and including /v1, e.g. http://localhost:8000/v1"""
    model: str
    """Model name as the endpoint knows it (GET /v1/models lists it)."""
    api_key_env: str = ""
    """Name of the environment variable that holds the API key; empty for a server that wants none. The key itself is
    never written anywhere."""
    concurrency: int = 64
    """Requests in flight at most."""
    timeout: float = 1800.0
    """Seconds for one answer; doubled when it is asked again after a time-out."""
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


@dataclass(frozen=True)
class Reply:
    """text: the answer without its thought. Tokens as the server counts them, thought included. seconds: of the try
    that succeeded. detail: the server's own words, when there is no answer."""

    status: str
    text: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    detail: str = ""


class Endpoint:
    """`chat(body) -> Reply` against one server. proven: whether it is known to have answered before (a resumed run)."""

    def __init__(self, name, cfg, proven=False):
        self.name, self.cfg, self.proven = name, cfg, proven
        self.key = _api_key(name, cfg)
        self.slots = asyncio.Semaphore(cfg.concurrency)
        self.calls = self.retried = self.in_flight = self.refusals = self.lost = self.completion_tokens = 0
        self.last_answer = -1.0  # time.monotonic()
        # 0 is aiohttp's "no limit"; None would be its default of 100
        limits = httpx2.Limits(max_connections=0, keepalive_expiry=KEEPALIVE)
        transport = openai.DefaultAioHttpClient(limits=limits, timeout=httpx2.Timeout(None, connect=30.0))
        self.client = openai.AsyncOpenAI(
            base_url=cfg.base_url, api_key=self.key or "none", max_retries=0, http_client=transport
        )

    async def chat(self, body):
        """POST /chat/completions. A pause between two tries keeps its slot, so a server in trouble is asked less."""
        async with self.slots:
            self.in_flight += 1
            try:
                return await self._until_answered(body | self.cfg.extra_body)
            finally:
                self.in_flight -= 1

    async def close(self):
        await self.client.close()

    def check_served(self):
        """Raises UserError if every question was refused, however few there were."""
        if self.refusals and not self.proven:
            raise UserError(f"endpoint {self.name} at {self.cfg.base_url} refused every request")

    async def _until_answered(self, body):
        cfg, deadline, failures, since = self.cfg, self.cfg.timeout, 0, time.monotonic()
        while True:
            pause, congested, begin = None, False, time.monotonic()
            try:
                async with asyncio.timeout(deadline):
                    response = await self.client.post("/chat/completions", body=body, cast_to=httpx2.Response)
                reply = read_reply(response.json(), time.monotonic() - begin)
                self.calls, self.completion_tokens = self.calls + 1, self.completion_tokens + reply.completion_tokens
                self.proven, self.lost, self.last_answer = True, 0, time.monotonic()
                return reply
            except TimeoutError:
                why = f"no answer within {deadline:g} s"
                deadline *= 2  # the server may have been right to take its time
            except openai.APIStatusError as error:
                why = self._words(error)
                congested = error.status_code in CONGESTED
                pause = _retry_after(error.response.headers)
                if error.status_code < 500 and not congested and error.status_code != 408:
                    return self._refused(error, why)
            except openai.APIConnectionError as error:
                why = _cause(error)
            except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
                why = f"the answer is no chat completion ({type(error).__name__}: {error})"
            failures, self.retried = failures + 1, self.retried + 1
            if failures > cfg.retries:
                await self._give_up(why, failures, since)
                if not congested:
                    return Reply("transport", detail=why)
                failures, since = 0, time.monotonic()  # being busy says nothing about this question
            if pause is None:
                pause = min(cfg.max_backoff, cfg.backoff * 2 ** max(failures - 1, 0)) * random.uniform(0.5, 1.0)
            elif pause > 60:
                say(f"{cfg.base_url} asks to wait {pause:.0f} s")
            await asyncio.sleep(pause)

    async def _give_up(self, why, tries, since):
        """Returns if the failure is this question's own; raises UserError if it is the endpoint's."""
        if self.last_answer > since:
            return
        self.lost += 1
        if not self.proven or self.lost >= LOST or not await self._is_there():
            raise UserError(
                f"endpoint {self.name} at {self.cfg.base_url} does not answer: {why} ({tries} tries in "
                f"{time.monotonic() - since:.0f} s); every answer so far is kept, run the same command again to go on"
            )

    async def _is_there(self):
        """Whether anything speaks HTTP at the address."""
        try:
            async with asyncio.timeout(30):
                await self.client.get("/models", cast_to=httpx2.Response)
        except openai.APIStatusError:
            return True
        except (openai.APIConnectionError, TimeoutError):
            return False
        return True

    def _refused(self, error, why):
        """The Reply for a 4xx, or a UserError where the next question would be refused as well."""
        where = f"endpoint {self.name} at {self.cfg.base_url}"
        if error.status_code in FATAL or (error.status_code == 403 and not self.proven):
            key = f" (key from ${self.cfg.api_key_env})" if self.cfg.api_key_env else " (no api_key_env is set)"
            raise UserError(f"{where} says {why}{key if error.status_code in (401, 403) else ''}")
        if error.code == "content_filter":
            return Reply("filtered", detail=why)
        if any(sign in f"{why} {error.code}".lower() for sign in TOO_LONG):
            return Reply("too_long", detail=why)
        self.refusals += 1
        if self.refusals >= REFUSALS and not self.proven:
            raise UserError(f"{where} refused its first {REFUSALS} requests; the last time it said {why}")
        return Reply("refused", detail=why)

    def _words(self, error):
        """The server's own message in one line, never with the key in it."""
        body = error.body if isinstance(error.body, dict) else {}
        message = " ".join(str(body.get("message") or error.body or "").split())[:300]
        if self.key:
            message = message.replace(self.key, "***")
        return f"HTTP {error.status_code}: {message}" if message else f"HTTP {error.status_code}"


def read_reply(completion, seconds=0.0):
    """A Reply from the JSON of a chat completion; the thought is taken off wherever the server put it.

    vLLM names the field `reasoning` (older ones and DeepSeek `reasoning_content`); without a reasoning parser the
    thought stands in the text, often without its opening tag, because the chat template has already written that.
    """
    choice = completion["choices"][0]
    message, finish = choice["message"], choice.get("finish_reason")
    usage = completion.get("usage") or {}
    content = message.get("content") or ""
    thought, _, text = content.rpartition("</think>")
    thinks = bool(thought or message.get("reasoning") or message.get("reasoning_content"))
    if "<think>" in text:  # a thought that never ends: what stands there is no answer
        thinks, text = True, ""
    text = text.strip()
    if finish == "length":
        status, text = "truncated", ""
    elif finish == "content_filter" or message.get("refusal"):
        status, text = "filtered", ""
    elif text:
        status = "ok"
    else:
        status = "misrouted" if thinks else "empty"
    return Reply(status, text, usage.get("prompt_tokens") or 0, usage.get("completion_tokens") or 0, round(seconds, 3))


def _api_key(name, cfg):
    if not cfg.api_key_env:
        return ""
    key = os.environ.get(cfg.api_key_env, "")
    if not key:
        raise UserError(f"endpoints.{name}.api_key_env names ${cfg.api_key_env}, which is not set")
    return key


def _retry_after(headers):
    """Seconds that the server asks to wait, or None. RFC 9110: a number of seconds, or a date."""
    value = headers.get("retry-after")
    if not value:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None


def _cause(error):
    """The innermost reason: the transport reports a refused connection as a time-out."""
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split()) or type(error).__name__
