"""One OpenAI-compatible server: how a question is sent, what is found out about it. agents/pool.py retries.

`openai.AsyncOpenAI` sends, over its aiohttp transport. Its own retries are off: the pool has to see every 429 and 5xx
to slow down, to ask another server and to keep deadlines. A call ends in a `Reply` (agents/replies.py) or in a
`CallError` (agents/complaints.py).
"""

import asyncio
import os
import re
import time
import urllib.request
from collections.abc import Awaitable, Callable
from dataclasses import replace

from agents.complaints import GUESSES, SERVERS, CallError, answer_limit, parse, read_refusal, room_left
from agents.limits import AdaptiveLimit, EndpointConfig, RateLimit, retry_after
from agents.replies import Reply, StreamError, read_completion, read_reply, tokens_in
from errors import UserError, one_line
from progress import say

TOKEN_KEYS = ("max_tokens", "max_completion_tokens")

MAX_REFUSALS = 20  # N refusals and not one answer: the request itself is wrong, not the questions
LOCKED_OUT = 5.0  # seconds without an answer after which a wrong key or an unknown model is no passing fault
CONNECT = 30.0  # seconds for a connection, and for small questions
KEEPALIVE = 4.0  # seconds, below the 5 s after which uvicorn (vLLM) closes an idle connection
TOKENS_PER_SECOND = 10.0  # slowest speed of one answer: max_tokens at this speed is part of its deadline
MAX_DOUBLINGS = 4  # of a deadline, one after each miss
SILENT_CUT = 16, 20_000  # N characters a token, in a prompt of M characters: no language; the server cut it
DECIDED = ("filtered", "too_long", "refused")  # kinds of a CallError, and then the status of a Reply
LEAST_ROOM = 256  # fewer tokens than this for an answer are not worth a call


class Endpoint:
    """`ask(body) -> Reply`, one try at one server, within its limits.

    url: the server, one of cfg.base_url (the first, if none is given). has_answered: whether it is known to have done
    so before (a resumed run). prober: `async prober(endpoint, body)`, called once, before the first question.

    How the server wants to be asked, which its refusals and agents/probe.py tell: token_key, its name for max_tokens,
    "" for any; stream, it answers in streams only; prefilled, its chat template writes the opening <think>, so that
    answers hold the closing tag alone; left_out, fields that it refuses and that change nothing in what an answer is
    drawn from (seed); pins; silent, it has let GET /models wait; window and longest, the tokens of prompt and answer
    and of an answer, 0 if not known; choices, whether it keeps to the words that `one_of` leaves, else these are not
    sent. batches: agents/batches.py's, by way of which named questions go, if there are any.
    """

    def __init__(
        self,
        name: str,
        cfg: EndpointConfig,
        url: str = "",
        has_answered: bool = False,
        prober: Callable[["Endpoint", dict], Awaitable[None]] | None = None,
    ):
        import httpx2
        import openai  # here: it takes 0.7 s to load, and --help does without

        self.name, self.cfg, self.url, self.key = name, cfg, url or cfg.base_url[0], _api_key(name, cfg)
        self.where = _where(name, self.url)

        # what it may be asked, what it is and how it wants to be asked, and what it has done so far
        self.limit, self.batches = AdaptiveLimit(cfg.concurrency), None
        self.requests, self.tokens = RateLimit(cfg.requests_per_minute), RateLimit(cfg.tokens_per_minute)
        self.prober, self.ready, self.listed, self.silent = prober, False, None, False
        self.token_key, self.stream, self.prefilled, self.choices, self.left_out = "", False, False, False, []
        self.pins, self.window, self.longest, self.shortens = {}, 0, 0, False
        self.has_answered, self.last_refusal, self.locked_since = has_answered, "", 0.0
        self.calls = self.retried = self.refusals = self.failures_in_row = self.completion_tokens = 0
        self.last_answer, self.away_until, self.broken = -1.0, 0.0, ""  # times: time.monotonic()

        # 0 connections is aiohttp's "no limit" (None: its default of 100); deadlines are ours, but that for connecting
        limits = httpx2.Limits(max_connections=0, keepalive_expiry=KEEPALIVE)
        http = openai.DefaultAioHttpClient(limits=limits, timeout=httpx2.Timeout(None, connect=CONNECT))
        self.openai = openai.AsyncOpenAI(base_url=self.url, api_key=self.key or "none", max_retries=0, http_client=http)
        self.openai.organization = self.openai.project = None  # the user's environment may name them for another host

    async def ask(self, body: dict, doublings: int = 0, name: str = "") -> Reply:
        """Send a question once. doublings: how often its deadline is doubled. name: by which a batch knows it again.
        The caller holds a place in `limit`, and no other question is in flight before the first one has returned.

        Returns a Reply for whatever the server decided about this question; raises CallError for everything else.
        """
        cuts = self.limit.cuts
        try:
            if not self.ready:
                await self.look_up()
                if self.prober:
                    await self.prober(self, body)
                self.ready = True
                self.limit.changed.give()
            return await self._answer(body, doublings, name)
        except CallError as error:
            if error.kind in DECIDED:
                return self._decided(error, self.adapted(body))
            failure = self._locked(error) if error.kind == "locked" else error

        # the server was busy, or it is in trouble: fewer at a time then, or none for a while (agents/pool.py)
        if (failure.late or failure.congested) and not self.batches:
            self.limit.congested(cuts)
        self.retried, self.failures_in_row = self.retried + 1, self.failures_in_row + (not failure.congested)
        raise failure

    async def send(
        self, body: dict, read: Callable[[dict, float], object], doublings: int = 0, room: int = 0, name: str = ""
    ) -> object:
        """Post a question as the server wants it, again if its refusal says how (`adapt`), each within its minutes'
        shares; the tokens of an answer are guessed before it and corrected after it.

        Returns read(completion, seconds); completion: the JSON of the answer, a stream put together. room: the most
        tokens that the answer may have, 0 for no limit of its own. name: as in `ask`; without one, the question never
        waits for a batch. Raises CallError.
        """
        guess = letters_in(body) // 4 + (self.completion_tokens // self.calls if self.calls else 0)
        while True:
            asked = self.adapted(body, room)
            await self.requests.take(1)
            await self.tokens.take(guess)
            begin = time.monotonic()
            try:
                content = await self._post(asked, doublings, name)
                try:
                    completion = read_completion(content)
                    self.tokens.correct(sum(tokens_in(completion)) - guess)
                    return read(completion, time.monotonic() - begin)
                except StreamError as error:
                    raise read_refusal(200, str(error).encode(), key=self.key) from None
                except (LookupError, TypeError, ValueError, AttributeError, RecursionError):  # a web page, anything
                    raise read_refusal(200, content, key=self.key) from None
            except CallError as error:
                if not self.adapt(error, asked):
                    raise

    async def models(self, url: str = "") -> object:
        """Returns the JSON of GET /models. Raises CallError."""
        import httpx2

        closing = {"headers": {"Connection": "close"}}  # a server that fails here may close it: none is to be reused
        response = await self.reach(CONNECT, self.openai.get(f"{url}/models", cast_to=httpx2.Response, options=closing))
        if isinstance(found := parse(response.content), str):
            raise read_refusal(200, response.content, key=self.key)
        return found

    async def _post(self, asked: dict, doublings: int, name: str) -> bytes:
        """Returns the body of the response: its JSON may hold what the library's types do not know, such as
        `reasoning`."""
        import httpx2

        if self.batches and name:
            return await self.batches.ask(name, asked)
        posted = self.openai.post("/chat/completions", cast_to=httpx2.Response, body=asked)
        return (await self.reach(self.deadline(asked, doublings), posted)).content

    async def reach(self, seconds: float, asking: Awaitable) -> object:
        """Returns what a call of the library returns. Raises CallError, never chained to the library's error, which may
        hold the key."""
        import httpx2
        import openai

        try:
            async with asyncio.timeout(seconds):
                response = await asking
                self.silent = False
                return response
        except TimeoutError:
            words = f"no answer within {seconds:g} s"
            if self.silent:  # further tries would each take as long, and longer
                words += f", nor to GET /models within {CONNECT:g} s, though it takes connections"
            raise CallError(words, late=True, fatal=self.silent) from None
        except openai.APIStatusError as error:
            response = error.response
            raise read_refusal(
                response.status_code, response.content, retry_after(response.headers), self.key
            ) from None
        except (openai.APIConnectionError, httpx2.RequestError) as error:  # the latter in the middle of a file
            words = _innermost(error)
            raise CallError(words.replace(self.key, "***") if self.key else words) from None

    def deadline(self, body: dict, doublings: int = 0) -> float:
        """Returns the seconds that a call may take."""
        return (self.cfg.timeout + max_tokens_of(body) / TOKENS_PER_SECOND) * 2 ** min(doublings, MAX_DOUBLINGS)

    async def is_there(self) -> bool:
        """Whether anything speaks HTTP at the address."""
        try:
            await self.models()
        except CallError as error:
            return error.status > 0
        return True

    async def close(self) -> None:
        if self.batches:
            self.batches.stop()
        await self.openai.close()

    def adapted(self, body: dict, room: int = 0) -> dict:
        """Returns the request body as this server wants it: without what is null or left out, nothing added by it."""
        streamed = {"stream": True, "stream_options": {"include_usage": True}} if self.stream else {}
        body = body if self.choices else {key: value for key, value in body.items() if key != "response_format"}
        body = self.pins | streamed | body | self.cfg.extra_body
        for key in TOKEN_KEYS:
            if self.token_key and key != self.token_key and key in body:
                body[self.token_key] = body.pop(key)
            if body.get(key):
                body[key] = min(tokens for tokens in (body[key], self.longest, room) if tokens)
        return {key: value for key, value in body.items() if value is not None and key not in self.left_out}

    # --- what it is, before the first question ---

    async def look_up(self) -> list[dict]:
        """Returns what GET /models lists, [] if the server does not tell; asked once. Corrects an address without /v1,
        pins what this kind of server adds, notes the window. Raises CallError while nobody is there yet."""
        if self.listed is not None:
            return self.listed
        try:
            found = await self.models()
        except CallError as error:
            if not error.late and (not error.status or error.congested):
                raise
            found = await self._below_v1()
            self.silent = error.late and found is None
        data = found.get("data") if isinstance(found, dict) else None
        self.listed = [model for model in data or [] if isinstance(model, dict) and "id" in model]

        # this model, or whatever a server of one model calls it
        mine = [model for model in self.listed if model["id"] == self.cfg.model]
        for model in mine or self.listed[: len(self.listed) == 1]:
            self.pins = dict(SERVERS["pins"].get(str(model.get("owned_by")), {}))
            told = model | (model["meta"] if isinstance(model.get("meta"), dict) else {})
            self.window = next((told[key] for key in SERVERS["windows"] if isinstance(told.get(key), int)), 0)
        return self.listed

    async def _below_v1(self) -> object:
        """Returns what GET /v1/models says where /models failed, and then asks there; None if that fails as well."""
        if re.search(r"/v\d", self.url):
            return None
        try:
            found = await self.models(f"{self.url}/v1")
        except CallError:
            return None
        say(f"{self.where}: the API is below {self.url}/v1, which is used; correct base_url")
        self.url += "/v1"
        self.openai.base_url, self.where = self.url, _where(self.name, self.url)
        return found

    # --- one question ---

    async def _answer(self, body: dict, doublings: int, name: str) -> Reply:
        """Ask until there is an answer or a refusal that stands: the prompt may fit where prompt and answer together
        do not, and then the answer may be shorter."""
        letters, room, shortened = letters_in(body), 0, 0

        def read(completion: dict, seconds: float) -> Reply:
            return read_reply(completion, seconds, self.prefilled, self.name)

        while True:
            most = max_tokens_of(self.adapted(body, room))  # before: another question may lower `longest` meanwhile
            try:
                reply = await self.send(body, read, doublings, room, name)
                break
            except CallError as error:
                words = str(error)
                if error.kind != "too_long" or shortened == len(GUESSES):
                    raise
                room = room_left(words, most, letters, shortened) or 0
                if not min(LEAST_ROOM, most) <= room < most:
                    raise
                if not self.shortens:
                    say(f"{self.where} has no room for {most} tokens, answers are shortened to fit ({error})")
                self.shortens, self.longest = True, answer_limit(words) or self.longest  # true of every answer
                shortened += 1

        # what this answer says about the server
        self.calls, self.completion_tokens = self.calls + 1, self.completion_tokens + reply.completion_tokens
        self.has_answered, self.failures_in_row, self.last_answer = True, 0, time.monotonic()
        self.locked_since = 0.0
        self.limit.answered()
        per_token, long = SILENT_CUT
        if letters > long and 0 < reply.prompt_tokens * per_token < letters:
            words = f"the server counts {reply.prompt_tokens} tokens in {letters} characters: it cuts long prompts"
            return replace(reply, status="too_long", text="", detail=words)
        return replace(reply, left_out=tuple(self.left_out))

    def adapt(self, error: CallError, asked: dict) -> bool:
        """Ask otherwise from now on, if a refusal asks for that, and if it changes nothing in what answers are drawn
        from. Returns whether it did."""
        words, named = str(error), self._named(error, asked)
        if error.kind != "refused":
            return False
        if TOKEN_KEYS[1] in words and TOKEN_KEYS[0] in asked:
            self.token_key = TOKEN_KEYS[1]
        elif re.search(r"\bstream", words) and "stream" not in asked | self.cfg.extra_body:
            self.stream = True
        elif "seed" in named:
            if "seed" not in self.left_out:  # another question may have found it out
                say(f"{self.where} refuses seed, which is left out: its answers cannot be repeated ({words})")
                self.left_out.append("seed")
        elif "response_format" in named and self.choices:
            self.choices = False
        elif any(key in self.pins for key in named):
            self.pins = {key: value for key, value in self.pins.items() if key not in named}
        else:
            return False
        return True

    def _named(self, error: CallError, asked: dict) -> list[str]:
        """Returns the fields of a request that a refusal speaks of."""
        ours = (key for key in asked if key not in ("model", "messages"))
        return [key for key in ours if re.search(rf"\b{re.escape(key)}\b", str(error))]

    def _decided(self, error: CallError, asked: dict) -> Reply:
        """The Reply for a question that the server will not take; raises CallError where it would take no other."""
        if error.kind != "refused":
            return Reply(error.kind, detail=str(error))
        if (named := self._named(error, asked)) and not self.has_answered:
            keys = " or ".join(f"endpoints.{self.name}.extra_body.{key}=null" for key in named)
            words = f"refuses {', '.join(named)}; set {keys} to leave it out ({error})"
            raise CallError(words, fatal=True, kind="passing")
        self.refusals, self.last_refusal = self.refusals + 1, str(error)
        if self.refusals >= MAX_REFUSALS and not self.has_answered:
            raise CallError(
                f"refused its first {MAX_REFUSALS} requests; the last time it said {error}", fatal=True, kind="passing"
            )
        return Reply("refused", detail=str(error))

    def _locked(self, error: CallError) -> CallError:
        """A wrong key, no credit, an unknown model or address. A gateway may say so in passing: it is final only if
        this run has had no answer yet, and it lasts."""
        now = time.monotonic()
        self.locked_since = self.locked_since or now
        hint = ""
        if error.status in (401, 403):
            hint = f" (key from ${self.cfg.api_key_env})" if self.cfg.api_key_env else " (no api_key_env is set)"
        elif error.status == 404 and not re.search(r"/v\d", self.url):
            hint = " (base_url is the address up to and including /v1)"
        fatal = self.last_answer < 0 and now - self.locked_since >= LOCKED_OUT
        return CallError(f"says {error}{hint}", error.status, error.code, error.wait, fatal=fatal, kind="locked")


def one_of(words: tuple[str, ...]) -> dict:
    """Returns the field of a request that leaves an answer no words but {"verdict": one of these}, as hosts and vLLM,
    SGLang and llama-server alike take it."""
    schema = {"type": "object", "properties": {"verdict": {"type": "string", "enum": [*words]}}}
    schema |= {"required": ["verdict"], "additionalProperties": False}
    return {
        "response_format": {"type": "json_schema", "json_schema": {"name": "verdict", "strict": True, "schema": schema}}
    }


def max_tokens_of(body: dict) -> int:
    """Returns the longest answer that a request asks for, 0 if it does not say."""
    return next((body[key] for key in TOKEN_KEYS if key in body), 0)


def letters_in(body: dict) -> int:
    return sum(len(message["content"]) for message in body["messages"])


def _where(name: str, url: str) -> str:
    """What an endpoint is called in messages. A proxy that the environment names may be what fails in its place."""
    scheme, _, rest = url.lower().partition("://")
    proxies = {scheme, "all"} & urllib.request.getproxies().keys()
    proxied = proxies and not urllib.request.proxy_bypass(rest.partition("/")[0])
    return f"endpoint {name} at {url}" + " by the environment's proxy (NO_PROXY names exceptions)" * bool(proxied)


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
    return one_line(error) or type(error).__name__
