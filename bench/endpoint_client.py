"""How fast the LLM client asks, beside bare aiohttp, on a stub server in a process of its own.

    python -m bench.endpoint_client                                           50 ms, 1 KB asked, 2 KB answered
    python -m bench.endpoint_client --calls 10240 --latency 5 --prompt-bytes 24576 --answer-bytes 24576 --in-flight 1024

One run prints one table; only ratios within it mean anything, and `load` says how busy the machine was.
"""

import argparse
import asyncio
import multiprocessing
import os
import socket
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
from aiohttp import web

from agents.journal import Journal, call_key
from agents.limits import EndpointConfig
from agents.pool import open_endpoints
from bench.harness import environment_line, table


def serve(listening: socket.socket, latency: float, answer_bytes: int) -> None:
    """Answer every chat completion with the same text, `latency` seconds after its request, while the parent lives."""
    choice = {"index": 0, "message": {"role": "assistant", "content": "x" * answer_bytes}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 500, "completion_tokens": 500, "total_tokens": 1000}
    answer = {"id": "", "object": "chat.completion", "created": 0, "model": "stub", "choices": [choice], "usage": usage}

    async def chat(request):
        await request.read()
        await asyncio.sleep(latency)
        return web.json_response(answer)

    async def run():
        app = web.Application(client_max_size=1 << 30)
        app.add_routes([web.post("/v1/chat/completions", chat)])
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.SockSite(runner, listening, backlog=4096).start()
        await asyncio.to_thread(multiprocessing.parent_process().join)

    asyncio.run(run())


@asynccontextmanager
async def ours(url: str, in_flight: int) -> AsyncIterator[Callable]:
    """Ask as agents/roles.py does: name the call, look it up, ask, and have the answer on disk before it is used."""
    with tempfile.TemporaryDirectory() as folder:
        journal = Journal(Path(folder) / "journal.jsonl")
        config = EndpointConfig(base_url=[url], model="stub", concurrency=in_flight)
        endpoints, pools = open_endpoints({"stub": config}, {"critic": ["stub"]}, journal.tally)

        async def chat(body, n):
            key = call_key(body, n)
            assert journal.get(key) is None
            reply = await pools["critic"].chat(body)
            await journal.keep({"key": key, "model": "stub"} | vars(reply))
            return reply.status == "ok"

        yield chat
        journal.close()
        for endpoint in endpoints:
            await endpoint.close()


@asynccontextmanager
async def bare(url: str, in_flight: int) -> AsyncIterator[Callable]:
    """Ask with nothing but the transport: no journal, no retries, no outcomes."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=4)) as session:

        async def chat(body, n):
            async with session.post(url + "/chat/completions", json=body) as response:
                return (await response.json())["choices"][0]["message"]["content"]

        yield chat


async def ask(client: Callable, url: str, calls: int, in_flight: int, prompt_bytes: int) -> tuple[float, float]:
    """Send a number of calls, some at a time, with prompts of some bytes: (seconds, of processor time)."""
    counter = iter(range(calls))
    async with client(url, in_flight) as chat:

        async def worker():
            for n in counter:
                messages = [{"role": "user", "content": f"{n} ".ljust(prompt_bytes, "q")}]
                assert await chat({"model": "stub", "messages": messages, "max_tokens": 64}, n), "no answer"

        begin, used = time.perf_counter(), time.process_time()
        await asyncio.gather(*[worker() for _ in range(in_flight)])
        return time.perf_counter() - begin, time.process_time() - used


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=10_000)
    parser.add_argument("--in-flight", type=int, nargs="+", default=[64, 256, 1024])
    parser.add_argument("--latency", type=float, default=0.05, help="seconds from a request to its answer")
    parser.add_argument("--prompt-bytes", type=int, default=1024)
    parser.add_argument("--answer-bytes", type=int, default=2048)
    args = parser.parse_args()
    print(environment_line("aiohttp", "openai") + "\n", flush=True)
    rows = []
    with socket.create_server(("127.0.0.1", 0), backlog=4096) as listening:
        words = (listening, args.latency, args.answer_bytes)
        stub = multiprocessing.get_context("spawn").Process(target=serve, args=words, daemon=True)
        stub.start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
        for client in (bare, ours):
            asyncio.run(ask(client, url, 1, 1, args.prompt_bytes))  # the stub is up, all is imported
        for in_flight in args.in_flight:
            for name, client in {"ours": ours, "bare aiohttp": bare}.items():
                seconds, cpu = asyncio.run(ask(client, url, args.calls, in_flight, args.prompt_bytes))
                row = {"in flight": in_flight, "client": name, "calls/s": args.calls / seconds}
                rows.append(row | {"CPU ms a call": 1000 * cpu / args.calls, "load": os.getloadavg()[0]})
        stub.terminate()
        stub.join()
    print(f"{args.calls} calls of {args.latency} s, {args.prompt_bytes} bytes asked, {args.answer_bytes} answered\n")
    print(table(rows))


if __name__ == "__main__":
    main()
