"""What --plan says of a CRV run, against what a run with the scripted teacher then asks."""

import json

import pytest

from agents.forecast import forecast, show_forecast
from build_crv import Config
from config import load
from data.records import write_jsonl
from pocket.problems import PocketConfig, build
from pocket.teacher import complete
from tests.support.crv_cli import command, run, write_problems
from tests.support.scripted_endpoint import Server


def config(tmp_path, *more):
    return load(Config, command(tmp_path / "problems.jsonl", tmp_path / "out", "http://x/v1", *more)[2:])


def test_calls_by_stage(tmp_path):
    shares = ("plan_for.shares=[0.2, 0.5, 0.3]", "plan_for.rounds=2.0", "plan_for.tries=1.5")
    calls = {name: n for name, (n, _, _) in forecast(config(tmp_path, *shares), 100, 1000).items()}
    # 50 medium chains are verified once; 50 others take 2 rewrites, each verified and rated again; 150 corruptions
    assert calls == {"critic": 100 + 100, "rethinker": 100 + 150, "verifier": 50 + 100}
    once = {name: n for name, (n, _, _) in forecast(config(tmp_path, *shares, "stages=cr"), 100, 1000).items()}
    assert once == {"critic": 100, "rethinker": 50 + 150, "verifier": 0}
    only = config(tmp_path, *shares, "stages=c", "incorrect_tries=0", "critic_votes=3")
    assert {name: n for name, (n, _, _) in forecast(only, 100, 1000).items()} == {
        "critic": 300,
        "rethinker": 0,
        "verifier": 0,
    }


def test_tokens_and_cost(tmp_path):
    cfg = config(tmp_path, "plan_for.thought=0", "plan_for.shares=[0, 1, 0]", "incorrect_tries=0")
    counts = forecast(cfg, 10, 1000)
    assert counts["critic"] == (10, 10 * 1350, 10) and counts["rethinker"] == (0, 0, 0)
    (name,) = cfg.endpoints
    cfg.endpoints[name].price_prompt = 1e6  # per million: one a token
    assert f"cost: {20 * 1350:,}" in show_forecast(cfg, 10, 3300.0)


def test_against_a_run(tmp_path):
    """The pocket run's problems and teacher; only the shares of the levels and the failures are told beforehand."""
    write_jsonl(tmp_path / "problems.jsonl", build(PocketConfig(train_problems=60, test_problems=4))[0])

    def answer(asked):
        return complete(asked.body, 0, 0.1)  # a whole completion

    with Server(answer) as server:
        done = run(tmp_path / "problems.jsonl", tmp_path / "out", server.url)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "out/report.json").read_text())
    shares = [report["levels_before"][level] / 60 for level in ("easy", "medium", "hard")]
    for agent, (calls, _, _) in forecast(config(tmp_path, f"plan_for.shares={shares}"), 60, 100).items():
        assert report["calls"][agent]["calls"] == pytest.approx(calls, rel=0.2), agent


def test_plan_starts_nothing(tmp_path):
    problems = write_problems(tmp_path / "problems.jsonl", 3)
    done = run(problems, tmp_path / "out", "http://127.0.0.1:9/v1", "--plan")
    assert done.returncode == 0 and "3 problems" in done.stdout and not (tmp_path / "out").exists()
    done = run(tmp_path / "none.jsonl", tmp_path / "out", "http://127.0.0.1:9/v1", "--plan", "plan_for.problems=17000")
    assert done.returncode == 0 and "17000 problems" in done.stdout and "(assumed)" in done.stdout
