"""How fast the LLM client asks, beside bare aiohttp, on a stub server in a process of its own.

    python -m bench.endpoint_client                                           50 ms, 1 KB asked, 2 KB answered
    python -m bench.endpoint_client --calls 10240 --latency 5 --prompt-bytes 24576 --answer-bytes 24576 --in-flight 1024

One run prints one table; only ratios within it mean anything, and `load` says how busy the machine was.
"""

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from subprocess import PIPE

import aiohttp
from aiohttp import web

from bench.harness import ROOT, environment_line, report, run, table


async def serve(latency: str, answer_bytes: str) -> None:
    """Answer every chat completion with the same text, `latency` seconds after its request. Prints its URL first."""
    text = "x" * int(answer_bytes)
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 500, "completion_tokens": 500, "total_tokens": 1000}
    answer = {"id": "", "object": "chat.completion", "created": 0, "model": "stub", "choices": [choice], "usage": usage}

    async def chat(request):
        await request.read()
        await asyncio.sleep(float(latency))
        return web.json_response(answer)

    app = web.Application(client_max_size=1 << 30)
    app.add_routes([web.post("/v1/chat/completions", chat)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=4096).start()
    print("http://{}:{}/v1".format(*runner.addresses[0]), flush=True)
    await asyncio.to_thread(sys.stdin.read)  # until whoever started it closes this, or dies


async def ask(name: str, url: str, *numbers: str) -> None:
    """Send a number of calls, some at a time, with prompts of some bytes, through one of CLIENTS. Reports the time."""
    calls, in_flight, prompt_bytes = map(int, numbers)
    counter = iter(range(calls))

    async def worker(chat):
        for n in counter:
            messages = [{"role": "user", "content": f"{n} ".ljust(prompt_bytes, "q")}]
            assert await chat({"model": "stub", "messages": messages, "max_tokens": 64}, n), "no answer"

    async def drive(chat):
        begin, used = time.perf_counter(), time.process_time()
        await asyncio.gather(*[worker(chat) for _ in range(in_flight)])
        report(seconds=time.perf_counter() - begin, cpu=time.process_time() - used)

    await CLIENTS[name](url, in_flight, drive)


async def ours(url, in_flight, drive):
    """Ask as agents/roles.py does: name the call, look it up, ask, and have the answer on disk before it is used."""
    from agents.journal import Journal, call_key
    from agents.limits import EndpointConfig
    from agents.pool import open_endpoints

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

        await drive(chat)
        journal.close()
        for endpoint in endpoints:
            await endpoint.close()


async def bare(url, in_flight, drive):
    """Ask with nothing but the transport: no journal, no retries, no outcomes."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=4)) as session:

        async def chat(body, n):
            async with session.post(url + "/chat/completions", json=body) as response:
                return (await response.json())["choices"][0]["message"]["content"]

        await drive(chat)


CLIENTS = {"ours": ours, "bare aiohttp": bare}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=10_000)
    parser.add_argument("--in-flight", type=int, nargs="+", default=[64, 256, 1024])
    parser.add_argument("--latency", type=float, default=0.05, help="seconds from a request to its answer")
    parser.add_argument("--prompt-bytes", type=int, default=1024)
    parser.add_argument("--answer-bytes", type=int, default=2048)
    args = parser.parse_args()
    print(environment_line("aiohttp", "openai") + "\n", flush=True)
    rows, module = [], ("-m", "bench.endpoint_client")
    for in_flight in args.in_flight:
        words = [sys.executable, *module, "serve", str(args.latency), str(args.answer_bytes)]
        with subprocess.Popen(words, cwd=ROOT, stdin=PIPE, stdout=PIPE, text=True) as stub:
            url = stub.stdout.readline().strip()
            for name in CLIENTS:
                found, tail = run(*module, "ask", name, url, args.calls, in_flight, args.prompt_bytes)
                assert found, tail
                rate, cpu = args.calls / found["seconds"], 1000 * found["cpu"] / args.calls
                row = {"in flight": in_flight, "client": name, "calls/s": rate, "CPU ms a call": cpu}
                rows.append(row | {"load": os.getloadavg()[0]})
    print(f"{args.calls} calls of {args.latency} s, {args.prompt_bytes} bytes asked, {args.answer_bytes} answered\n")
    print(table(rows))


if __name__ == "__main__":
    parts = {"serve": serve, "ask": ask}
    asyncio.run(parts[sys.argv[1]](*sys.argv[2:])) if sys.argv[1:2] and sys.argv[1] in parts else main()
