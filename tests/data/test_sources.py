"""Public datasets' row shapes -> problem records, from small files of those shapes."""

import json

import pytest

from data.errors import UserError
from data.records import read_records
from data.sources import Config, main


def conversation(user, reasoning, solution):
    text = (
        f"<|begin_of_thought|>\n\n{reasoning}\n\n<|end_of_thought|>\n\n"
        f"<|begin_of_solution|>\n\n{solution}\n\n<|end_of_solution|>"
    )
    return {"system": "…", "conversations": [{"from": "user", "value": user}, {"from": "assistant", "value": text}]}


def run(tmp_path, name, rows, **options):
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    main(Config(name, str(tmp_path / "problems.jsonl"), path=str(tmp_path / "rows.jsonl"), **options))
    return read_records(tmp_path / "problems.jsonl", "problem")


def test_bespoke(tmp_path, capsys):
    maths = conversation(
        "Return your final response within \\boxed{}. What is 1/2 of 3?",
        "Half of 3 is 3/2.",
        "So \\boxed{\\frac{3}{2}}.",
    )
    code = conversation(
        "Generate an executable Python function generated from the given prompt. Add.", "Plus.", "def f(): 1"
    )
    rows = [
        maths,
        maths,
        code,
        conversation("Why?", "Because.", "No box."),
        {"conversations": []} | code | {"conversations": maths["conversations"][:1]},
        conversation("What is 1/2 of 5?", "Half is 5/2.", "So \\boxed{\frac{5}{2}}."),  # a form feed
        conversation("What is 1/2 of 7?", " ", "So \\boxed{3.5}."),
    ]
    problems = run(tmp_path, "bespoke", rows)
    assert [(p["problem"], p["answer"], p["reasoning"], p["domain"]) for p in problems] == [
        ("What is 1/2 of 3?", "\\frac{3}{2}", "Half of 3 is 3/2.", "math"),
        (code["conversations"][0]["value"], "def f(): 1", "Plus.", "code"),
    ]
    printed = capsys.readouterr().out
    for reason in (
        "1 duplicate",
        "1 without a box in the solution",
        "1 without a tagged thought and solution",
        "2 with an empty",
    ):
        assert reason in printed


def test_openthoughts_metadata(tmp_path):
    row = {
        "problem": "1+1?", "deepseek_reasoning": "1+1=2", "deepseek_solution": "\\boxed{2}",
        "ground_truth_solution": "2",
        "domain": "math", "source": "s", "test_cases": None, "starter_code": None,
    }  # fmt: skip
    code = row | {"domain": "code", "test_cases": '{"inputs": ["1"], "outputs": ["2"]}', "starter_code": "def f(x):"}
    first, second = run(tmp_path, "openthoughts", [row, code | {"deepseek_solution": "def f(x): return x + 1"}])
    assert (first["answer"], first["solution"]) == ("2", "\\boxed{2}")
    assert second["answer"] == "def f(x): return x + 1" and second["tests"] == {"inputs": ["1"], "outputs": ["2"]}
    assert second["problem"].endswith("def f(x):")


def test_nothing_usable_and_no_file(tmp_path):
    with pytest.raises(UserError, match="no usable row"):
        run(tmp_path, "bespoke", [conversation("?", "r", "no box")])
    with pytest.raises(UserError, match="no such file"):
        main(Config("bespoke", "o.jsonl", path="nowhere.jsonl"))
