"""How fast the client asks, beside other libraries, on a stub endpoint in its own process.

    python -m bench.client calls     [--curator PYTHON] [--distilabel PYTHON]     10,000 calls, 50 ms, 2 KB answers
    python -m bench.client long                                      24 KB each way, 5 s, 1,024 in flight
    python -m bench.client problems  [--count 114000]                build_crv.py whole: memory, speed, ledger

One run prints one table; only ratios within it mean anything, and `load` says how busy the machine was. PYTHON is an
interpreter with that library installed (pip install bespokelabs-curator; distilabel[openai] requests).
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from pathlib import Path

from bench.common import ROOT, environment_line, table


@contextlib.contextmanager
def stub(*words):
    """URL of a stub endpoint that lives as long as the block."""
    command = [sys.executable, "-m", "bench.stub_endpoint", *map(str, words)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def stats(url):
    with urllib.request.urlopen(url.removesuffix("/v1") + "/stats") as response:
        return json.load(response)


# --- workers, each in a process of its own ---


async def drive(ask, calls, concurrency):
    """Await ask(n) for every n, so many at a time. Returns (seconds, CPU seconds) that it took."""
    numbers = iter(range(calls))

    async def worker():
        for n in numbers:
            await ask(n)

    begin, used = time.perf_counter(), time.process_time()
    await asyncio.gather(*[worker() for _ in range(concurrency)])
    return time.perf_counter() - begin, time.process_time() - used


def question(n, prompt_bytes):
    return {
        "model": "stub",
        "messages": [{"role": "user", "content": f"{n} ".ljust(prompt_bytes, "q")}],
        "max_tokens": 64,
    }


async def ours(url, calls, concurrency, prompt_bytes, folder):
    """As agents/roles.py does it: key, look-up, question, journal on disk before the answer is used."""
    from agents.client import Endpoint
    from agents.journal import Journal, call_key
    from agents.limits import EndpointConfig
    from agents.pool import Pool

    journal, answers = Journal(Path(folder) / "journal.jsonl"), []
    pool = Pool([Endpoint("stub", EndpointConfig(url, "stub", concurrency=concurrency))])

    async def ask(n):
        body = question(n, prompt_bytes)
        key = call_key(body, n)
        assert journal.get(key) is None
        reply = await pool.chat(body)
        await journal.append({"key": key, "model": "stub"} | vars(reply))
        answers.append(reply.status == "ok")

    try:
        return await drive(ask, calls, concurrency), sum(answers)
    finally:
        journal.close()
        await pool.close()


async def aiohttp(url, calls, concurrency, prompt_bytes, folder):
    """Nothing but the transport: no journal, no retries, no outcomes."""
    import aiohttp as library

    answers = []
    async with library.ClientSession(connector=library.TCPConnector(limit=0, keepalive_timeout=4)) as session:

        async def ask(n):
            async with session.post(url + "/chat/completions", json=question(n, prompt_bytes)) as response:
                answers.append(bool((await response.json())["choices"][0]["message"]["content"]))

        return await drive(ask, calls, concurrency), sum(answers)


def work(name, url, calls, concurrency, prompt_bytes):
    with tempfile.TemporaryDirectory() as folder:
        run = {"ours": ours, "aiohttp": aiohttp}[name](url, calls, concurrency, prompt_bytes, folder)
        (seconds, cpu), answers = asyncio.run(run)
    print(json.dumps({"seconds": seconds, "cpu": cpu, "answers": answers}))


# --- what is measured ---


def timed(name, python, url, calls, concurrency, prompt_bytes):
    """One table row for one library."""
    words = [name, url, str(calls), str(concurrency), str(prompt_bytes)]
    with tempfile.TemporaryDirectory() as folder:
        own = name in ("ours", "aiohttp")
        command = [python, *(["-m", "bench.client", "work"] if own else ["bench/client_neighbours.py"]), *words]
        done = subprocess.run(command + ([] if own else [folder]), cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{name} failed:\n{done.stderr[-2000:]}")
    row = json.loads(done.stdout.strip().splitlines()[-1])
    return row | {"rate": calls / row["seconds"], "load": os.getloadavg()[0]}


def calls(args):
    mine, rows = sys.executable, []
    pythons = {"ours": mine, "aiohttp": mine, "curator": args.curator, "distilabel": args.distilabel}
    for concurrency in args.concurrency:
        with stub("--latency", 0.05, "--answer-bytes", 2048) as url:
            base = None
            for name, python in pythons.items():
                if python:
                    row = timed(name, python, url, args.count, concurrency, 1024)
                    base, used = base or row, 1000 * row["cpu"] / args.count
                    rows.append({"in flight": concurrency, "client": name, "calls/s": row["rate"],
                                 "ours / it": base["rate"] / row["rate"], "CPU ms a call": used,
                                 "its CPU / ours": row["cpu"] / base["cpu"], "answers": row["answers"],
                                 "load": row["load"]})  # fmt: skip
    print(f"{args.count} calls, 50 ms, 1 KB questions, 2 KB answers\n\n{table(rows)}")


def long(args):
    ideal, rows = 1024 / 5, []
    with stub("--latency", 5, "--answer-bytes", 24 << 10) as url:
        for name in ("ours", "aiohttp"):
            row = timed(name, sys.executable, url, args.count, 1024, 24 << 10)
            rows.append({"client": name, "calls/s": row["rate"], "of the ideal": f"{row['rate'] / ideal:.1%}",
                         "CPU ms a call": 1000 * row["cpu"] / args.count, "load": row["load"]})  # fmt: skip
    print(f"{args.count} calls, 5 s, 24 KB each way, 1,024 in flight: {ideal:.0f}/s would be ideal\n\n{table(rows)}")


def problems(args):
    """build_crv.py over `count` problems, 256 in flight, no latency: memory and speed in every tenth of the calls."""
    with (
        tempfile.TemporaryDirectory(dir=args.folder) as folder,
        stub("--latency", 0, "--answer-bytes", 256, "--crv") as url,
    ):
        source, out = Path(folder) / "problems.jsonl", Path(folder) / "out"
        with source.open("w") as file:
            for n in range(args.count):
                row = {"id": f"p{n}", "problem": f"What is {n} plus {n}?", "answer": str(2 * n),
                       "reasoning": f"chain {n}: {n} + {n} = {2 * n}. " * 10}  # fmt: skip
                file.write(json.dumps(row) + "\n")
        process = subprocess.Popen(
            [sys.executable, "build_crv.py", f"problems={source}", f"out={out}", f"endpoints.teacher.base_url={url}",
             "endpoints.teacher.model=stub", "endpoints.teacher.concurrency=256", "probe=false"], cwd=ROOT,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        begin, seen = time.monotonic(), []
        while process.poll() is None:
            time.sleep(1)
            with contextlib.suppress(FileNotFoundError, IndexError):
                pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
                seen.append(
                    (time.monotonic() - begin, stats(url)["requests"], pages * os.sysconf("SC_PAGE_SIZE") / 2**20)
                )
        asked = stats(url)["requests"]
        print(f"{args.count} problems, {asked} calls, {time.monotonic() - begin:.0f} s, status {process.returncode}")
        marks = [next(row for row in seen if row[1] >= asked * share / 10 and row[1]) for share in range(11)]
        for (t0, n0, _), (t1, n1, rss) in itertools.pairwise(marks):
            print(f"  {n1:>8} calls  {(n1 - n0) / max(t1 - t0, 1):6.0f}/s  {rss:5.0f} MB")
        print(f"  highest {max(rss for _, _, rss in seen):.0f} MB, exports included")
        ids, reasons = Counter(), Counter()
        for name in ("sft", "rejected"):
            with (out / f"{name}.jsonl").open() as file:
                for line in file:
                    row = json.loads(line)
                    ids[row["id"]] += 1
                    reasons[row.get("reason", "kept")] += 1
        with (out / "journal.jsonl").open() as file:
            keys = Counter(json.loads(line)["key"] for line in file)
        exact = len(ids) == args.count == ids.total() and len(keys) == keys.total() == asked
        print(f"  ledger {'exact' if exact else 'WRONG'}: {ids.total()} problems, {keys.total()} journal lines")
        print(f"  {dict(reasons)}")


def main():
    if sys.argv[1:2] == ["work"]:
        name, url, *numbers = sys.argv[2:]
        return work(name, url, *map(int, numbers))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = parser.add_subparsers(required=True)
    kind = kinds.add_parser("calls")
    kind.set_defaults(run=calls)
    kind.add_argument("--count", type=int, default=10_000)
    kind.add_argument("--concurrency", type=int, nargs="+", default=[64, 256, 1024])
    kind.add_argument("--curator", help="a Python with bespokelabs-curator")
    kind.add_argument("--distilabel", help="a Python with distilabel[openai]")
    kind = kinds.add_parser("long")
    kind.set_defaults(run=long)
    kind.add_argument("--count", type=int, default=10_240)
    kind = kinds.add_parser("problems")
    kind.set_defaults(run=problems)
    kind.add_argument("--count", type=int, default=114_000)
    kind.add_argument("--folder", help="where to put the temporary files (20 KB a problem)")
    args = parser.parse_args()
    print(environment_line("aiohttp", "openai") + "\n", flush=True)
    args.run(args)


if __name__ == "__main__":
    main()
