"""Shards of one run: together they are that run, byte for byte, and what does not belong together is refused."""

import asyncio
import hashlib
import json
import random
import shutil

import pytest
import yaml

import build_crv
from agents import merge
from config import load
from errors import UserError
from tests.support.crv_cli import ROOT, command, write_problems
from tests.support.scripted_endpoint import Server

COUNT = 20
FREE = (  # what changes no answer may differ; where the whole shows it, it is as in shard 0
    [],
    ["max_cost=5", "probe=short", "endpoints.teacher.price_prompt=1.5", "endpoints.teacher.price_completion=3"],
    ["report_samples=3", "sampling.max_tokens=512", "endpoints.teacher.concurrency=2"],
)


async def shuffled(asked):
    """Every level, verdict and failure, as a function of the request; answers in any order."""
    await asyncio.sleep(random.random() * 0.02)
    text = f"{asked.role}|{asked.problem}|{asked.reasoning}|{asked.seed}"
    dice = random.Random(hashlib.sha256(text.encode()).digest())
    answer = int(asked.answer)
    if asked.role == "critic":
        return dice.choice(["easy", "medium", "medium", "hard"])
    if asked.role == "verifier":
        return dice.choice(["YES", "YES", "NO"])
    return f"{asked.role} {dice.random():.3f} = {answer + (asked.role == 'incorrect')}"


def run(*words):
    """build_crv.py in this process: starting it eight times would take longer than all it does."""
    build_crv.main(load(build_crv.Config, command(*words)[2:]))


def merged(pattern, out):
    merge.main(merge.Config(shards=str(pattern), out=str(out)))


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """A folder with `whole` and, from a copy of the problems elsewhere, `s0` to `s2`."""
    folder = tmp_path_factory.mktemp("shards")
    problems = write_problems(folder / "problems.jsonl", COUNT)
    (folder / "elsewhere").mkdir()
    copy = write_problems(folder / "elsewhere/problems.jsonl", COUNT)
    with Server(shuffled) as server:
        run(problems, folder / "whole", server.url, "level_size=min")
        asked = len(server.asked)
        for i in range(3):
            run(copy, folder / f"s{i}", server.url, "level_size=min", f"shard={i}/3", *FREE[i])
        assert len(server.asked) == 2 * asked  # no problem twice, none missed
    return folder


def files(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.name not in ("journal.jsonl", "config.yaml")}


def test_merged_shards_are_the_whole_run(shards, tmp_path, capsys):
    merged(shards / "s*", tmp_path / "out")
    assert files(tmp_path / "out") == files(shards / "whole")
    assert f"{COUNT} problems = " in capsys.readouterr().err
    ids = [[json.loads(line)["id"] for line in (shards / f"s{i}/traces.jsonl").open()] for i in range(3)]
    assert ids[1] == [f"p{n}" for n in range(2, COUNT + 1, 3)]
    with pytest.raises(UserError, match=r"holds the results of another configuration .*merged_from"):
        run(shards / "elsewhere/problems.jsonl", tmp_path / "out", "http://127.0.0.1:9/v1", "level_size=min")


def test_more_shards_than_problems(tmp_path):
    """Shards 2 and 3 have nothing to do: they end well, with a report, and take part in the merge."""
    problems = write_problems(tmp_path / "problems.jsonl", 2)
    with Server(shuffled) as server:
        run(problems, tmp_path / "whole", server.url)
        for i in range(4):
            run(problems, tmp_path / f"s{i}", server.url, f"shard={i}/4")
    assert (tmp_path / "s3/traces.jsonl").read_bytes() == b""
    assert "kept (0%)" in (tmp_path / "s3/report.html").read_text()
    merged(tmp_path / "s*", tmp_path / "out")
    assert files(tmp_path / "out") == files(tmp_path / "whole")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: shutil.rmtree(folder / "s1"), r"missing: shard 1/3"),
        (lambda folder: shutil.copytree(folder / "s1", folder / "s9"), r"1/3 is there more than once: .*s1, .*s9"),
        (lambda folder: (folder / "s2/report.json").unlink(), r"s2 is not finished; run shard 2/3 again"),
        (lambda folder: set_config(folder / "s2", "max_rounds", 2), r"s2 was made with another max_rounds \(2\)"),
        (lambda folder: set_config(folder / "s2", "shard", "2/4"), r"s2 is shard 2/4, .*s0 is 0/3"),
        (lambda folder: set_report(folder / "s1", "input", {"problems": COUNT}), r"s1 was made with another input"),
        (
            lambda folder: set_report(folder / "s1", "input", {"problems": COUNT, "sha256": "0"}),
            r"s1 was made with another input.sha256 \('0'\) than .*s0 \('\w+'\)",
        ),
        (
            lambda folder: set_made(folder / "s1", "models", {"critic": "m", "rethinker": "n", "verifier": "m"}),
            r"s1 was made with another models.rethinker \('n'\) than .*s0 \('m'\)",
        ),
        (
            lambda folder: set_made(folder / "s2", "prompts", {}),
            r"s2 was made with another prompts.critic \(None\) than .*s0",
        ),
        (lambda folder: cut(folder / "s2/traces.jsonl"), r"s2/traces.jsonl ends early"),
        (lambda folder: (folder / "s1/config.yaml").unlink(), r"s1 is no output folder"),
    ],
)
def test_what_is_not_one_run_is_refused(shards, tmp_path, change, message):
    for i in range(3):
        shutil.copytree(shards / f"s{i}", tmp_path / f"s{i}")
    change(tmp_path)
    with pytest.raises(UserError, match=message):
        merged(tmp_path / "s*", tmp_path / "out")
    assert not (tmp_path / "out/report.json").exists()


def set_config(folder, key, value):
    config = yaml.safe_load((folder / "config.yaml").read_text())
    (folder / "config.yaml").write_text(yaml.safe_dump(config | {key: value}))


def set_report(folder, key, value):
    report = json.loads((folder / "report.json").read_text())
    (folder / "report.json").write_text(json.dumps(report | {key: value}))


def set_made(folder, key, value):
    report = json.loads((folder / "report.json").read_text())
    set_report(folder, "made_with", report["made_with"] | {key: value})


def cut(path):
    path.write_bytes(path.read_bytes()[:-20])


@pytest.mark.parametrize("text", ["3/3", "1", "-1/3", "a/b", "1/0"])
def test_a_shard_that_is_none(text):
    with pytest.raises(UserError, match=r"must be i/n with i from 0 to n-1"):
        merge.parse_shard(text)


@pytest.mark.parametrize("setup", ["vllm_one", "vllm_four", "hosted"])
def test_documented_set_ups(setup):
    files = ["configs/paper/crv_bespoke.yaml", f"configs/endpoints/{setup}.yaml"]
    cfg = load(build_crv.Config, [word for file in files for word in ("--config", str(ROOT / file))])
    build_crv.check_config(cfg)
    assert list(cfg.endpoints) == ["teacher"] and cfg.prompt_role == "user"
