"""Table 6 out of one run: sft_c and sft_cr of a whole run are what runs with stages=c and stages=cr write."""

import hashlib
import json
import random

import pytest

import build_crv
from config import load
from tests.support.crv_cli import command, write_problems
from tests.support.scripted_endpoint import Server


def stubborn(asked):
    """Rewrites that often change nothing, or repeat themselves after a failed verification."""
    text = f"{asked.role}|{asked.problem}|{asked.reasoning}|{asked.seed}"
    dice = random.Random(hashlib.sha256(text.encode()).digest())
    if asked.role == "critic":
        return dice.choice(["easy", "medium", "hard"])
    if asked.role == "verifier":
        return dice.choice(["YES", "NO"])
    if asked.role == "incorrect":
        return f"gone wrong = {int(asked.answer) + 1}"
    return dice.choice([asked.reasoning, f"{asked.role} = {asked.answer}", f"otherwise = {asked.answer}"])


@pytest.fixture(scope="module")
def columns(tmp_path_factory):
    """{stages: output folder} of three runs that share nothing but the problems."""
    folder = tmp_path_factory.mktemp("columns")
    problems = write_problems(folder / "problems.jsonl", 40)
    with Server(stubborn) as server:
        for stages in ("crv", "cr", "c"):
            words = command(problems, folder / stages, server.url, f"stages={stages}", "guards=false")
            build_crv.main(load(build_crv.Config, words[2:]))
    return {stages: folder / stages for stages in ("crv", "cr", "c")}


def without_votes(path):
    """The lines of a file without the votes: a whole run has more of them on the same chain."""
    lines = []
    for row in map(json.loads, path.read_text().splitlines()):
        row["provenance"].pop("votes")
        lines.append(json.dumps(row))
    return lines


@pytest.mark.parametrize("stages", ["c", "cr"])
def test_one_run_gives_the_other_columns(columns, stages):
    whole, alone = (
        without_votes(path) for path in (columns["crv"] / f"sft_{stages}.jsonl", columns[stages] / "sft.jsonl")
    )
    assert whole == alone and whole
    later = {json.loads(line)["rounds"] for line in whole}
    assert later == ({0} if stages == "c" else {0, 1, 2, 3})  # the case in point: the first rewrite changed nothing
