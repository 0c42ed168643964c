"""The live line and the forecast, of a real run against a real server."""

import re

import build_crv
from config import load
from tests.support.crv_cli import command, write_problems
from tests.support.scripted_endpoint import Server, reply


def fixed(asked):
    """Every problem takes three calls of 11 + 7 tokens and is kept, but every tenth is not."""
    if asked.role == "critic":
        return reply("medium")
    verdict = "NO" if int(asked.answer) % 20 == 0 else "YES"
    return reply(verdict if asked.role == "verifier" else f"Oops, = {int(asked.answer) + 5}")


def test_forecast_and_live_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("agents.report.FORECAST", 10)
    problems = write_problems(tmp_path / "problems.jsonl", 40)
    with Server(fixed) as server:
        prices = ["endpoints.teacher.price_prompt=10", "endpoints.teacher.price_completion=100"]
        one = ["endpoints.teacher.concurrency=1"]  # in the order of the input
        words = command(problems, tmp_path / "out", server.url, *prices, *one)[2:]
        build_crv.main(load(build_crv.Config, words))
        asked = len(server.asked)
    said = capsys.readouterr().err
    forecast = re.search(r"forecast for all 40 problems from the first 10: (.*)", said)[1]
    kept, calls, tokens, time, cost = forecast.replace(",000", "000").split(", ")
    assert kept == "90% kept" and asked == 36 * 3 + 4 * 2
    assert calls == f"{asked} calls" and tokens.replace(",", "") == f"{asked * 18} tokens"
    assert cost == f"cost {asked * (11 * 10 + 7 * 100) / 1e6:.4g}"
    assert re.fullmatch(r"00:\d\d from now", time)
    last = next(line for line in said.splitlines() if line.startswith("crv: 40/40"))
    numbers = {name: float(value) for name, value in re.findall(r", ([a-z_]+)=([\d.e+-]+)(?=,|$)", last)}
    assert (numbers["kept"], numbers["rejected"], numbers["retries"]) == (36, 4, 0)
    assert numbers["tokens_per_s"] > 7 * 10
    assert numbers["in_flight"] <= 1 and abs(numbers["cost"] - asked * 810 / 1e6) < 1e-3

    words[words.index(f"out={tmp_path}/out")] = f"out={tmp_path}/again"
    build_crv.main(load(build_crv.Config, [*words, f"journal={tmp_path}/out/journal.jsonl"]))
    forecast = re.search(r"forecast .*", capsys.readouterr().err)[0]
    assert "from now" not in forecast and f"{asked} calls" in forecast  # nothing was asked: nothing is known about time
