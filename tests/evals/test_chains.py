"""Chains out of an evaluation, and the study's answers: one response a problem, or an error."""

import json

import pytest

from data.records import write_jsonl
from data.rows import iter_rows
from errors import UserError
from evals import chains
from evals.benchmarks.common import BenchmarkConfig
from pocket.study.findings import read_answers


@pytest.fixture
def made(tmp_path):
    """(evaluation's folder, a function that adds a generation, chains' config)."""
    out, problems = tmp_path / "eval", tmp_path / "problems.jsonl"
    out.mkdir()
    write_jsonl(problems, [{"id": "p1", "problem": "1 + 1?", "answer": "2"}])

    def add(key, text, **other):
        record = {"key": key, "model": "own/tiny", "benchmark": "sums", "problem_id": "p1", "sample": 0, "text": text}
        with (out / "generations.jsonl").open("a") as file:
            file.write(json.dumps(record | other) + "\n")

    source = BenchmarkConfig(file=str(problems))
    return out, add, chains.Config(str(out), "own/tiny", "sums", str(tmp_path / "chains.jsonl"), source)


def test_a_chain_is_the_thought_of_the_first_sample(made):
    _, add, cfg = made
    add("k", "<think>one and one</think>2")
    add("l", "<think>another</think>2", sample=1)
    add("m", "<think>another</think>2", model="own/other")
    chains.main(cfg)
    ((_, row),) = iter_rows(cfg.out)
    assert row == {"id": "p1", "problem": "1 + 1?", "answer": "2", "reasoning": "one and one"}


def test_responses_of_other_weights_or_settings_are_not_mixed(made):
    _, add, cfg = made
    add("k", "<think>one and one</think>2")
    add("l", "<think>after more training</think>2")
    with pytest.raises(UserError, match="holds several responses of own/tiny to p1 of sums"):
        chains.main(cfg)


def test_the_studys_answers_are_one_graded_response_each(made):
    out, add, _ = made
    grades = out / "grades.jsonl"
    grades.write_text('{"key": "g", "generation": "k", "status": "correct"}\n')
    add("k", "2")
    assert read_answers(out) == {"own/tiny": {"p1": True}}
    add("l", "3")
    with pytest.raises(UserError, match=r"the response to p1 has no grade; run evaluate.py --grade-only"):
        read_answers(out)
    with grades.open("a") as file:
        file.write('{"key": "h", "generation": "l", "status": "wrong"}\n')
    with pytest.raises(UserError, match="holds several responses of own/tiny to p1"):
        read_answers(out)
