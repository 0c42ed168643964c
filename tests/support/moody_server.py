"""Servers with the habits of real ones, and runs of build_crv.py against them."""

import asyncio
import hashlib
import json
import random
import re
import time

from tests.support.crv_cli import run, write_problems
from tests.support.scripted_endpoint import Server, reply

OUTPUTS = (
    "sft",
    "pairs",
    "traces",
    "rejected",
    "sft_original",
    "sft_c",
    "sft_cr",
    "sft_easy",
    "sft_medium",
    "sft_hard",
)


def moody(asked):
    """A server with every habit, each a function of the request alone: levels, refusals to rate, thoughts, lost
    answers, corruptions that stay right, truncation."""
    text = f"{asked.role}|{asked.problem}|{asked.reasoning}|{asked.seed}"
    dice = random.Random(hashlib.sha256(text.encode()).digest())
    marker, answer = re.search(r"chain\d+", asked.reasoning).group(), int(asked.answer)
    if dice.random() < 0.08:
        return reply("<think>so the user wants", "length")
    if asked.role == "critic":
        label = dice.choice(["easy", "medium", "medium", "hard"])
        return dice.choice([label, f"<think>is it hard?</think>My rating: {label}", "It may be easy or hard."])
    if asked.role == "verifier":
        return dice.choice(["YES", "YES", "<think>NO?</think>\nYES", "NO"])
    if asked.role == "incorrect":
        return f"{marker} gone wrong {dice.random():.3f} = {dice.choice([answer, answer + 1, answer + 2])}"
    return f"{marker} {asked.role} {dice.random():.3f} = {dice.choice([answer] * 4 + [answer + 1])}"


async def slowly(asked):
    await asyncio.sleep(random.random() * 0.03)
    return moody(asked)


def wait_for(server, count, process):
    """Until the server has been asked so often by a process that is still at work."""
    deadline = time.monotonic() + 60
    while len(server.asked) < count:
        assert process.poll() is None and time.monotonic() < deadline, "the run ended before it could be interrupted"
        time.sleep(0.01)


def contents(out):
    return {name: (out / f"{name}.jsonl").read_bytes() for name in OUTPUTS} | {
        "report": (out / "report.json").read_bytes()
    }


def rows(out, name):
    return [json.loads(line) for line in (out / f"{name}.jsonl").read_text().splitlines()]


def undisturbed(folder):
    """One uninterrupted run over 60 problems: (folder, its problems file, the requests it took)."""
    problems = write_problems(folder / "problems.jsonl", 60)
    with Server(slowly) as server:
        done = run(problems, folder / "out", server.url)
    assert done.returncode == 0, done.stderr
    return folder / "out", problems, server.asked


def fixed(asked):
    if asked.role == "critic":
        return "easy" if asked.reasoning.startswith("chain1:") else "medium"
    answer = int(asked.answer)
    return {"verifier": "YES", "incorrect": f"Oops, = {answer + 5}"}.get(asked.role, f"longer = {answer}")
