"""A real HTTP server on loopback whose answers each test scripts: `Server(answer)`, `answer(Asked) -> reply`."""

import asyncio
import json
import threading
from dataclasses import dataclass

from aiohttp import web

ROLES = {
    "capable evaluator": "critic",
    "capable Verifier": "verifier",
    "skilled at extending": "easy",
    "skilled at simplifying": "hard",
    "skilled at converting": "incorrect",
    "following the reasoning process": "solve",
}

RESET = object()  # an answer that breaks the connection


@dataclass
class Asked:
    """One request as the server sees it. tries: how often this very body came before."""

    role: str
    problem: str
    answer: str
    reasoning: str
    body: dict
    headers: dict
    tries: int

    @property
    def seed(self):
        return self.body["seed"]


def reply(text, finish="stop", prompt_tokens=11, completion_tokens=7, **message):
    return {
        "id": "x",
        "object": "chat.completion",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": text, **message}, "finish_reason": finish}
        ],
        "usage": {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens},
    }


def error(status, message="no", headers=None, **fields):
    return web.json_response({"error": {"message": message, **fields}}, status=status, headers=headers)


def parse(body, headers, tries):
    text = "\n".join(message["content"] for message in body["messages"])
    role = next((role for sign, role in ROLES.items() if sign in text), "probe")
    if role == "probe":
        return Asked(role, text, "", "", body, headers, tries)
    user = body["messages"][-1]["content"]
    rest, reasoning = user.removeprefix("Problem:\n").split("\n\nReasoning process:\n")
    problem, _, answer = rest.partition("\n\nAnswer:\n")
    return Asked(role, problem, answer, reasoning, body, headers, tries)


class Server:
    """with Server(answer) as server: … server.url …

    answer(asked) returns the assistant's text, a whole completion (dict), or an aiohttp Response; it may be async.
    server.asked holds every request in order of arrival; probe questions go to `probe(asked)` and server.probes.
    server.models is what GET /v1/models tells. down() and up() take the server away and bring it back where it was.
    """

    def __init__(self, answer, probe=lambda asked: "alpha"):
        self.answer, self.probe, self.asked, self.probes, self.seen = answer, probe, [], [], {}
        self.models, self.gone = {"object": "list", "data": []}, False
        self.loop = asyncio.new_event_loop()

    async def _chat(self, request):
        raw = await request.text()
        self.seen[raw] = self.seen.get(raw, 0) + 1
        asked = parse(json.loads(raw), request.headers, self.seen[raw] - 1)
        if self.gone:
            request.transport.abort()
        (self.probes if asked.role == "probe" else self.asked).append(asked)
        result = (self.probe if asked.role == "probe" else self.answer)(asked)
        if asyncio.iscoroutine(result):
            result = await result
        if isinstance(result, str):
            result = reply(result)
        if result is RESET:
            request.transport.abort()
            return web.Response()
        return web.json_response(result) if isinstance(result, dict) else result

    async def _models(self, request):
        return web.json_response(self.models)

    def _routes(self, app):
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_get("/v1/models", self._models)

    async def _start(self):
        app = web.Application(client_max_size=1 << 26)
        self._routes(app)
        self.runner = web.AppRunner(app, shutdown_timeout=0.2)
        await self.runner.setup()
        self.site = web.TCPSite(self.runner, "127.0.0.1", 0)
        await self.site.start()
        self.url = f"http://127.0.0.1:{self.runner.addresses[0][1]}/v1"

    def down(self):
        """Nobody listens any more, and connections that are still open break."""
        self.gone = True
        asyncio.run_coroutine_threadsafe(self.site.stop(), self.loop).result(10)

    def up(self):
        port = int(self.url.rsplit(":", 1)[1].split("/")[0])
        self.gone, self.site = False, web.TCPSite(self.runner, "127.0.0.1", port, reuse_address=True)
        asyncio.run_coroutine_threadsafe(self.site.start(), self.loop).result(10)

    def __enter__(self):
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self.loop).result(10)
        return self

    async def _end(self):
        await self.runner.cleanup()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:  # answers that hang
            task.cancel()

    def __exit__(self, *exc):
        asyncio.run_coroutine_threadsafe(self._end(), self.loop).result(10)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)
        self.loop.close()


def script(**replies):
    """answer(asked) that gives each role its replies in turn; the last one of a role is repeated.

    Roles: critic, easy, hard, incorrect, verifier, and solve for the prompt of our own. For runs in which
    one problem walks alone.
    """
    left = {role: list(texts) if isinstance(texts, list) else [texts] for role, texts in replies.items()}

    def answer(asked):
        texts = left[asked.role]
        return texts.pop(0) if len(texts) > 1 else texts[0]

    return answer
