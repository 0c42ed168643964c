"""From responses to cells: which grade belongs to which problem, what is voted on, what the notes say."""

import json
from dataclasses import dataclass, field

from evals import benchmarks
from evals import samples as viewer
from evals.assembly import Evaluation, TableConfig, measured
from evals.benchmarks.common import BenchmarkConfig
from evals.grade import grade_keys, grade_missing
from evals.models import Place
from evals.questions import questions, settings_of
from evals.store import Ledgers
from evals.tables import rendered
from grading.programs import isolation


@dataclass
class Sampling:
    temperature: float = 1.0
    top_p: float | None = None
    top_k: int | None = None
    seed: int = 0


@dataclass
class Cfg:
    """The part of evaluate.py's Config that grading and cells read."""

    benchmarks: dict
    samples: int = 1
    protocol: str = ""
    system: str | None = None
    instruction: str | None = None
    max_new_tokens: int = 64
    dtype: str = "auto"
    sampling: Sampling = field(default_factory=Sampling)
    endpoints: dict = field(default_factory=dict)
    notes: list = field(default_factory=list)
    chat_template_kwargs: dict = field(default_factory=dict)


def showed(out, cfg, respond, dtypes=("float32",), table=None):
    """(the only Table, the viewer's items, {problem id: grade record}) of one model. respond: problem, sample -> text;
    dtypes: of its responses, in turn."""
    problems = [p for name, b in cfg.benchmarks.items() for p in benchmarks.load(name, b, "", True)]
    settings, place = settings_of(cfg), Place("folder")
    rows = questions(cfg, [place], problems, settings, {"folder": [[], "hash"]})
    generations, grades = Ledgers(out, "generations"), Ledgers(out, "grades")
    for number, want in enumerate(rows):
        if want.key not in generations:
            made = {"text": respond(want.problem, want.sample), "tokens": 9, "finish_reason": "stop"}
            made["dtype"] = dtypes[number % len(dtypes)]
            generations.append({"key": want.key, "problem_id": want.problem.id, **made}, False)
    keys = grade_keys(rows)
    grade_missing(rows, generations, grades, keys)
    places, plan = {"m": {"": place}}, {"t": table or TableConfig("T", {"m": "m"})}
    run = Evaluation(settings, places, problems, rows, generations, grades, keys)
    (table,) = measured(cfg, plan, run)
    items = viewer.collected(run)
    return table, items, {record["problem_id"]: record for record in grades}


def sums(tmp_path, *rows):
    file = tmp_path / "sums.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Cfg({"sums": BenchmarkConfig(file=str(file))})


def test_two_problems_of_one_prompt_share_the_response_and_not_the_grade(tmp_path):
    rows = [{"id": id, "problem": "1 + 1 = ?", "answer": gold} for id, gold in (("a", "2"), ("b", "3"))]
    table, items, grades = showed(tmp_path, sums(tmp_path, *rows), lambda problem, sample: "\\boxed{2}")
    assert sum(1 for _ in Ledgers(tmp_path, "generations")) == 1
    assert {id: record["status"] for id, record in grades.items()} == {"a": "correct", "b": "wrong"}
    assert (table.cells["sums", "m"].right, table.cells["sums", "m"].n) == ({"a": 1, "b": 0}, 2)
    assert [item.answers["m"][0].status for item in items] == ["correct", "wrong"]


def test_programs_are_not_voted_on(tmp_path):
    """Each wrong program would be a candidate of its own, so two right of five would win every vote."""
    row = {"question_id": "w", "question_content": "Twice.", "fn_name": None, "starter_code": ""}
    row |= {"public_test_cases": [{"input": "1\n", "output": "2\n"}], "extra_test_cases": []}
    (tmp_path / "lcb.jsonl").write_text(json.dumps(row) + "\n")
    cfg = Cfg({"LCB": BenchmarkConfig(kind="livecodebench_v2", file=str(tmp_path / "lcb.jsonl"))}, samples=3)

    def respond(problem, sample):
        return f"```python\nprint(2 * int(input()) + {sample // 2})\n```"

    table, _, grades = showed(tmp_path, cfg, respond)
    assert grades["w"]["isolation"] == isolation() and any(isolation() in line for line in table.notes)
    file = tmp_path / "grades.jsonl"  # the table tells where they were graded, not where it is rendered
    file.write_text(file.read_text().replace(json.dumps(isolation(), ensure_ascii=False), '"a cell elsewhere"', 1))
    table, _, _ = showed(tmp_path, cfg, respond)
    assert any(f"ran in {', or '.join(sorted(['a cell elsewhere', isolation()]))}. 6 s" in n for n in table.notes)
    assert (table.cells["LCB", "m"].k, table.cells["LCB", "m"].majority) == (2, None)
    assert "avg@3" in rendered("md", [table]) and "maj@" not in rendered("md", [table])


def test_responses_computed_in_two_dtypes_are_told(tmp_path):
    rows = [{"id": id, "problem": f"1 + {id} = ?", "answer": "2"} for id in "abc"]
    for name, dtypes, lines in (
        ("one", ("bfloat16",), []),
        ("two", ("float32", "bfloat16"), ["Computed in bfloat16 and float32 (m)."]),
        ("server", (None,), []),
    ):
        (tmp_path / name).mkdir()
        table, _, _ = showed(tmp_path / name, sums(tmp_path, *rows), lambda problem, sample: "\\boxed{2}", dtypes)
        assert [line for line in table.notes if "Computed" in line] == lines


def test_a_row_of_the_paper_is_filled_by_kind_whatever_its_name_is(tmp_path):
    (tmp_path / "g.jsonl").write_text(json.dumps({"question": "1 + 1 = ?", "answer": "So it is.\\n#### 2"}) + "\n")
    cfg = Cfg({"sums": BenchmarkConfig(kind="gsm8k", file=str(tmp_path / "g.jsonl"))})
    config = TableConfig(columns={"CogPO": "m"}, paper="table2")
    table, _, _ = showed(tmp_path, cfg, lambda problem, sample: "\\boxed{2}", table=config)
    assert table.cells["GSM8K", "CogPO"].k == 1


def test_split_shows_parts_that_the_table_knows_as_parts(tmp_path):
    rows = [{"id": f"{i}", "problem": f"1 + {i} = ?", "answer": "2", "subject": "ab"[i % 2]} for i in range(4)]
    cfg = sums(tmp_path, *rows)
    cfg.benchmarks["sums"].split = "subject"
    table, _, _ = showed(tmp_path, cfg, lambda problem, sample: "\\boxed{2}")
    assert (table.rows, table.parts) == (["sums", "sums: a", "sums: b"], {"sums: a", "sums: b"})
    assert [table.cells[row, "m"].n for row in table.rows] == [4, 2, 2]
