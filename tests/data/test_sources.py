"""Public datasets' row shapes -> problem and pair records, from small files of those shapes."""

import json
import tracemalloc

import pytest

from config import load
from data import sources
from data.records import read_records
from data.sources import Config, main
from errors import UserError

TAGS = "<|begin_of_thought|>\n\n{}\n\n<|end_of_thought|>\n\n<|begin_of_solution|>\n\n{}\n\n<|end_of_solution|>"
DAMAGED = chr(12) + "rac{5}{2}"  # what JSON makes of "\frac" with one backslash


def conversation(user, reasoning, solution, system="In <|begin_of_thought|> tags."):
    text = TAGS.format(reasoning, solution)
    return {"system": system, "conversations": [{"from": "user", "value": user}, {"from": "assistant", "value": text}]}


def run(tmp_path, rows, *words, kind="problem", suffix="jsonl"):
    path, out = tmp_path / f"rows.{suffix}", tmp_path / "records.jsonl"
    if suffix == "parquet":
        from datasets import Dataset

        Dataset.from_list(rows).to_parquet(path)
    elif suffix == "json":
        path.write_text(json.dumps(rows))
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    main(load(Config, [f"out={out}", f"path={path}", *words]))
    return list(read_records(out, kind))


BESPOKE = [
    conversation("Return your final response within \\boxed{}. What is 1/2 of 3?", "3/2.", "So \\boxed{\\frac{3}{2}}."),
    conversation("Generate an executable Python function generated from the given prompt. Add.", "Plus.", "def f(): 1"),
]


@pytest.mark.parametrize("suffix", ["jsonl", "json", "parquet"])
def test_tagged_conversations(tmp_path, suffix):
    """Bespoke-Stratos-17k, Sky-T1-data-17k (one .json), OpenThoughts-114k (parquet)."""
    problems = run(tmp_path, BESPOKE, suffix=suffix)
    assert [(p["problem"], p["answer"], p["reasoning"], p["domain"]) for p in problems] == [
        ("What is 1/2 of 3?", "\\frac{3}{2}", "3/2.", "math"),
        (BESPOKE[1]["conversations"][0]["value"], "def f(): 1", "Plus.", "code"),
    ]


def test_every_row_left_out_is_counted(tmp_path, capsys):
    rows = [
        *BESPOKE,
        BESPOKE[0],
        conversation("Why?", "Because.", "No box."),
        BESPOKE[1] | {"conversations": BESPOKE[0]["conversations"][:1]},
        conversation("What is 1/2 of 5?", "Half is 5/2.", f"So \\boxed{{{DAMAGED}}}."),
        conversation("What is 1/2 of 7?", " ", "So \\boxed{3.5}."),
        {"system": "", "conversations": [{"from": "user", "value": "?"}, {"from": "assistant", "value": "a thought"}]},
    ]
    assert len(run(tmp_path, rows)) == 2
    first, *others = capsys.readouterr().out.splitlines()
    assert sorted(first.partition("left out: ")[2].split(", ")) == [
        "1 duplicate (first: rows.jsonl:3)",
        "1 whose turns do not alternate between user and assistant (first: rows.jsonl:5)",
        "1 with an empty or missing text (first: rows.jsonl:7)",
        "1 with damaged LaTeX (first: rows.jsonl:6)",
        "1 without a tagged thought and solution (first: rows.jsonl:8)",
        "1 without an answer: no box in the solution (first: rows.jsonl:4)",
    ]
    assert others == [
        "  8 rows: 2 kept + 6 left out = 8",
        "  not as they were: 6 system prompts that only lay out the reply (dropped)",
    ]


@pytest.mark.parametrize("system", ["Use <|begin_of_thought|> tags.\n\n", "with a literal \\n\\n", ""])
def test_the_system_prompt_does_not_matter(tmp_path, system):
    row = BESPOKE[0]["conversations"]
    assert run(tmp_path, [{"system": system, "conversations": row}])[0]["answer"] == "\\frac{3}{2}"


def test_code_without_the_usual_prefix_and_role_content_turns(tmp_path):
    text = TAGS.format("Loop.", "```python\nprint(1)\n```")
    turns = [{"role": "user", "content": "Print one."}, {"role": "assistant", "content": text}]
    (problem,) = run(tmp_path, [{"conversations": turns}])
    assert (problem["domain"], problem["answer"]) == ("code", "```python\nprint(1)\n```")


METADATA = {
    "problem": "1+1?", "deepseek_reasoning": "1+1=2", "deepseek_solution": "\\boxed{2}", "ground_truth_solution": "2",
    "domain": "math", "source": "s", "test_cases": None, "starter_code": None,
}  # fmt: skip


def test_openthoughts_metadata(tmp_path, capsys):
    code = METADATA | {"domain": "code", "deepseek_solution": "def f(x): return x + 1", "starter_code": "def f(x):"}
    tests = {"test_cases": '{"inputs": ["1"], "outputs": ["2"]}'}
    broken = ("{", "[1]", '{"inputs": ["1"], "outputs": []}', '{"fn_name": "f", "inputs": ["abc"], "outputs": [1]}')
    bad = [code | {"test_cases": tests, "problem": tests} for tests in broken]
    first, second, *others = run(tmp_path, [METADATA, code | tests, *bad])
    assert (first["answer"], first["solution"]) == ("2", "\\boxed{2}")
    assert second["answer"] == "def f(x): return x + 1" and second["tests"] == {"inputs": ["1"], "outputs": ["2"]}
    assert second["problem"].endswith("def f(x):")
    assert len(others) == 4 and not any("tests" in problem for problem in others)
    assert "4 tests that cannot be run (their problems are kept)" in capsys.readouterr().out


def test_several_chains_of_one_problem(tmp_path, capsys):
    """OmniThought: a list of chains, some of them judged to be wrong."""
    row = {
        "question": "2+3?",
        "reasoning": [
            {"full_response": "<think>two and three</think>It is \\boxed{5}."},
            {"full_response": "<think>2, 3, so 5</think>\\boxed{5}", "logical_correctness": 1},
            {"full_response": "<think>2, 3, so 6</think>\\boxed{6}", "logical_correctness": 0},
            {"full_response": "<think>2, 3</think>five"},
        ],
    }
    first, second = run(tmp_path, [row])
    assert (first["answer"], first["reasoning"], first["solution"]) == ("5", "two and three", "It is \\boxed{5}.")
    assert second["problem"] == "2+3?" and first["id"] != second["id"]
    printed = capsys.readouterr().out
    assert "1 a chain judged to be wrong" in printed and "1 without an answer: no box in the solution" in printed
    with pytest.raises(UserError, match=r"cannot tell problem, answer and reasoning from the columns question, reas"):
        run(tmp_path, [{"question": "2+3?", "reasoning": "a text", "y": "5"}])


def test_gsm8k_by_its_columns(tmp_path):
    """y is what follows ####, of short solutions and of long ones."""
    rows = [{"question": f"{n}?", "answer": f"{'So it goes. ' * n}\n#### 7"} for n in (1, 99)]
    short, long = run(tmp_path, rows, "columns={problem: question, answer: answer, reasoning: answer}")
    assert (short["answer"], long["answer"]) == ("7", "7") and short["solution"] == rows[0]["answer"]


def test_limo_and_s1k_by_their_columns(tmp_path):
    """The commands of docs/data.md."""
    limo = {"question": "2+3?", "solution": "2+3 is 5. **Final Answer** \\boxed{5}", "answer": 5}
    (problem,) = run(tmp_path, [limo], "columns={problem: question, answer: answer, reasoning: solution}")
    assert (problem["answer"], problem["reasoning"]) == ("5", limo["solution"])
    s1k = {"question": "2+3?", "solution": "5", "cot_type": "math"}
    s1k |= {"deepseek_thinking_trajectory": "t", "deepseek_attempt": "\\boxed{5}"}
    words = (
        "{problem: question, answer: solution, reasoning: deepseek_thinking_trajectory, solution: deepseek_attempt, "
        "domain: cot_type}"
    )
    for row in (s1k, s1k | {"solution": "x" * 300}):  # the answer itself, or a text that is too long to be one
        (problem,) = run(tmp_path, [row], f"columns={words}")
        assert (problem["answer"], problem["reasoning"], problem["solution"]) == ("5", "t", "\\boxed{5}")


def test_columns_by_name(tmp_path):
    row = {"question": "2+3?", "solution": "Adding gives \\boxed{5}.", "cot": "<think>2, 3</think>", "answer": "wrong",
           "thinking_trajectories": ["another"]}  # fmt: skip
    words = ["columns={problem: question, answer: solution, reasoning: cot}"]
    (problem,) = run(tmp_path, [row], *words, suffix="parquet")
    assert (problem["problem"], problem["answer"], problem["reasoning"]) == ("2+3?", "5", "2, 3")
    assert problem["solution"] == row["solution"]
    with pytest.raises(UserError, match="columns names 'cott', which the rows do not have; they have question"):
        run(tmp_path, [row], "columns={problem: question, answer: solution, reasoning: cott}")
    with pytest.raises(UserError, match=r"cannot tell .* from the columns question, cot"):
        run(tmp_path, [{"question": "?", "cot": "!"}])


def test_tests_by_name_are_those_that_build_crv_takes(tmp_path, capsys):
    row = {"problem": "1?", "answer": "def f(x): ...", "reasoning": "r", "domain": "code"}
    good = {"fn_name": "f", "inputs": [[1]], "outputs": [1]}
    given = (json.dumps(good), json.dumps(good | {"inputs": ["abc"]}), None)
    problems = run(tmp_path, [row | {"problem": f"{tests}?", "tests": tests} for tests in given])
    assert [problem.get("tests") for problem in problems] == [good, None, None]
    (problem,) = run(tmp_path, [row | {"tests": good}])
    assert problem["tests"] == good
    assert "not as they were: 1 tests that cannot be run (their problems are kept)" in capsys.readouterr().out


EASYDISTILL = {"prompt": "2+3?", "chosen": "<think>5</think>\\boxed{5}", "rejected": "<think>6</think>", "beta": 0.5}


def test_preferences_become_pairs(tmp_path, capsys):
    rows = [EASYDISTILL, EASYDISTILL | {"beta": 0.1}, EASYDISTILL | {"beta": 0.3}]
    large, small = run(tmp_path, rows, kind="pair")
    assert (large["gap"], small["gap"]) == ("large", "small") and large["problem_id"] == small["problem_id"]
    assert large["prompt"] == [{"role": "user", "content": "2+3?"}]
    assert large["rejected"] == [{"role": "assistant", "content": "<think>6</think>"}]
    assert "1 with no beta of 0.1, 0.2, 0.5" in capsys.readouterr().out
    assert run(tmp_path, rows[2:], "betas=[0.1, 0.3, 0.5]", kind="pair")[0]["gap"] == "medium"
    messages = {key: [{"role": role, "content": EASYDISTILL[key]}] for key, role in
                (("prompt", "user"), ("chosen", "assistant"), ("rejected", "assistant"))}  # fmt: skip
    assert run(tmp_path, [messages], "gap=small", kind="pair")[0]["chosen"] == large["chosen"]
    whole = messages | {side: messages["prompt"] + messages[side] for side in ("chosen", "rejected")}  # UltraFeedback's
    assert run(tmp_path, [whole], "gap=small", kind="pair")[0]["chosen"] == large["chosen"]


TYPED = {"problem": "1+1?", "answer": "2", "reasoning": "r"}


@pytest.mark.parametrize(
    "row",
    [
        {"conversations": ["2+3?", "5"]},
        {"conversations": {"from": ["user"], "value": ["2+3?", "4?"]}},
        {"conversations": [{"from": "user", "value": ["2+3?"]}, {"from": "assistant", "value": "x"}]},
        METADATA | {"deepseek_reasoning": ["1+1=2"]},
        METADATA | {"problem": 7},
        {"question": "1+1?", "reasoning": [7]},
        {"question": "1+1?", "domain": ["math"], "reasoning": [{"full_response": "\\boxed{2}"}]},
        TYPED | {"reasoning": {"text": "r"}},
        TYPED | {"solution": ["s"]},
        TYPED | {"problem": ["1+1?"]},
        TYPED | {"answer": {"value": "2"}},
        EASYDISTILL | {"beta": "0.5"},
    ],
    ids=lambda row: ", ".join(f"{key}={value}" for key, value in row.items())[-60:],
)
def test_a_row_of_unexpected_types_is_left_out(tmp_path, row):
    with pytest.raises(UserError, match=r": 1 with an unexpected type( of [\w ]+)? \(first: rows.jsonl:1\)$"):
        run(tmp_path, [row])


def test_what_is_null_is_missing(tmp_path, capsys):
    (only,) = run(tmp_path, [TYPED | {"reasoning": None}, TYPED | {"solution": None, "domain": None}])
    assert (only["reasoning"], only["solution"], only["domain"]) == ("r", "", "math")
    assert "left out: 1 with an empty or missing text" in capsys.readouterr().out


def test_benchmark_problems_are_left_out(tmp_path, capsys):
    question = "How many of the first twenty positive integers are prime or divisible by seven?"
    (tmp_path / "bench.jsonl").write_text(json.dumps({"id": "b1", "problem": f"**{question}**"}) + "\n")
    rows = [conversation(question, "Count.", "\\boxed{9}"), BESPOKE[0]]
    problems = run(tmp_path, rows, f"decontaminate=[{tmp_path}/bench.jsonl]")
    assert [p["problem"] for p in problems] == ["What is 1/2 of 3?"]
    assert f"1 in {tmp_path.name}/bench.jsonl" in capsys.readouterr().out
    (pair,) = map(json.loads, (tmp_path / "records.jsonl.overlaps.jsonl").read_text().splitlines())
    assert (pair["benchmark_id"], pair["share"], pair["left_out"]) == ("b1", 1.0, True)


def test_memory_does_not_grow_with_the_dataset(tmp_path, monkeypatch):
    long = "x" * 100_000
    rows = ((f"{n}", {"problem": f"{n}?", "answer": "2", "reasoning": f"{n} {long}"}) for n in range(300))  # 30 MB
    monkeypatch.setattr(sources, "read_rows", lambda cfg: rows)
    tracemalloc.start()
    main(Config(str(tmp_path / "o.jsonl"), path="rows"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5e6 and (tmp_path / "o.jsonl").stat().st_size > 30e6


def test_nothing_is_left_behind_by_an_error(tmp_path):
    with pytest.raises(UserError, match="no usable row"):
        run(tmp_path, [conversation("?", "r", "no box")])
    with pytest.raises(UserError, match="not valid JSON"):
        (tmp_path / "rows.jsonl").write_text(json.dumps(BESPOKE[0]) + "\n{no json\n")
        main(Config(str(tmp_path / "records.jsonl"), path=str(tmp_path / "rows.jsonl")))
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]
    (tmp_path / "records.jsonl").write_text("of an earlier run\n")
    with pytest.raises(UserError, match="no usable row"):
        run(tmp_path, [conversation("?", "r", "no box")])
    assert (tmp_path / "records.jsonl").read_text() == "of an earlier run\n"


def test_what_cannot_be_read_is_said_in_one_line(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="no usable row"):
        run(tmp_path, [conversation("?", "r", "no box")])
    with pytest.raises(UserError, match="no such file"):
        main(Config("o.jsonl", path="nowhere.jsonl"))
    for out, said in ((tmp_path, "is a folder; name a file"), (tmp_path / "rows.jsonl/o", "Not a directory|exists")):
        with pytest.raises(UserError, match=f"cannot write .*({said})"):
            main(Config(str(out), path=str(tmp_path / "rows.jsonl")))
    with pytest.raises(UserError, match="let path=… name the files of one"):
        main(Config("o.jsonl", path="rows.jsonl", split="test"))
    with pytest.raises(UserError, match="set name="):
        main(Config("o.jsonl"))
    (tmp_path / "rows.jsonl").write_text("{no json\n")
    with pytest.raises(UserError, match=r"rows.jsonl:1: not valid JSON"):
        main(Config("o.jsonl", path=str(tmp_path / "rows.jsonl")))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match=r"no nobody/nothing from the hub \(.*or set path="):
        main(Config("o.jsonl", name="nobody/nothing"))
