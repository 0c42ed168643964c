"""`python build_crv.py` with keys beyond its defaults: guards, verifier_mode, tests, instruction."""

import json

import pytest

from tests.support.crv_cli import check_refused, run, write_problems
from tests.support.scripted_endpoint import Server

CODE = {"id": "c1", "problem": "Print twice the number.", "answer": "(see solution)", "domain": "code",
        "reasoning": "chain9:\n```\nprint(2 * int(input()))\n```",
        "tests": {"inputs": ["1"], "outputs": ["2"]}}  # fmt: skip


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def helpful(asked):
    """Rates chain1 easy, else medium; talks about the task in its first try; solves what it is given."""
    if asked.role == "critic":
        return "easy" if asked.reasoning.startswith("chain1:") else "medium"
    if asked.role == "solve":
        return asked.reasoning if "```" in asked.reasoning else f"\\boxed{{{asked.reasoning.split()[-1]}}}"
    if asked.role == "incorrect":
        return "```\nprint(3)\n```" if "```" in asked.reasoning else "It is = 1001"
    helpful.tries += 1
    return (
        f"As requested, longer = {asked.answer}" if helpful.tries == 1 else f"One step after the other = {asked.answer}"
    )


@pytest.mark.parametrize("guarded", [True, False])
def test_all_of_it_through_the_command_line(tmp_path, guarded):
    problems = write_problems(tmp_path / "problems.jsonl", 2)
    with problems.open("a") as file:
        file.write(json.dumps(CODE) + "\n")
    words = ["verifier_mode=solve", f"guards={guarded}".lower(),
             "instruction={code: 'Program: {problem}', default: 'Solve: {problem}'}"]  # fmt: skip
    helpful.tries = 0
    with Server(helpful) as server:
        done = run(problems, tmp_path / "out", server.url, *words)
    assert done.returncode == 0, done.stderr
    assert "problems with tests: 1; programs run under" in done.stderr + done.stdout
    kept = {row["id"]: row for row in rows(tmp_path / "out/sft.jsonl")}
    assert {id: (row["origin"], row["rounds"]) for id, row in kept.items()} == {
        "p1": ("easy*", 2 if guarded else 1), "p2": ("med", 0), "c1": ("med", 0)}  # fmt: skip
    assert kept["c1"]["messages"][0]["content"] == "Program: Print twice the number."
    assert kept["p2"]["messages"][0]["content"].startswith("Solve: ")
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert report["guards"]["easy"] == ({"meta": 1} if guarded else {})
    assert report["pairs"] == {"small": 1, "medium": 1, "large": 3}
    ratio = report["length_ratio"]["small"]
    assert (ratio["count"], ratio["chosen_longer"]) == (1, 1.0) and ratio["median"] == ratio["chosen_over_rejected"]
    assert {a.role for a in server.asked} == {"critic", "easy", "solve", "incorrect"}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"tests": {"inputs": [], "outputs": []}}, r"problems\.jsonl:1: tests: 0 inputs and 0 outputs"),
        ({"tests": ["1"]}, r"problems\.jsonl:1: tests must be"),
    ],
)
def test_bad_records_are_refused(tmp_path, changed, message):
    (tmp_path / "problems.jsonl").write_text(json.dumps(CODE | changed) + "\n")
    check_refused(run(tmp_path / "problems.jsonl", tmp_path / "out", "http://127.0.0.1:9/v1"), message)
