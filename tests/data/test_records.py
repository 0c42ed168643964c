"""Bad record files: file, line and reason in one line."""

import contextlib
import json

import pytest

from data.dataset import DataConfig, load_pairs, load_sft
from data.pairs import make_pairs
from data.records import check_record, read_records, write_jsonl
from data.render import Renderer
from errors import UserError
from pocket.tiny import make_tokenizer
from tests.support.tiny import pair_rows, sft_rows

GOOD = {"id": "a", "problem": "1+1?", "answer": "2", "reasoning": "1+1=2"}


def line(**changes):
    return json.dumps(GOOD | changes)


@pytest.mark.parametrize(
    "second,message",
    [
        ('{"id": "b", "problem": ', "not valid JSON"),
        ("[1, 2]", "must be a JSON object, not list"),
        (
            json.dumps({"id": "b", "problem": "?"}),
            "a record of kind problem lacks answer, reasoning; python -m data.sources",
        ),
        (line(), "duplicate id 'a', first seen at "),
        (line(id="b", answer=" "), "answer must be a string that is not empty"),
        (line(id="b", answer=2), "answer must be a string that is not empty"),
        (
            '{"id": "b", "problem": "?", "answer": "2", "reasoning": "so \\boxed{2}"}',
            "backspace character before 'oxed{2}'",
        ),
        (
            '{"id": "b", "problem": "\\frac{1}{2}", "answer": "2", "reasoning": "r"}',
            "form feed character before 'rac{1}{",
        ),
    ],
)
def test_the_line_and_the_reason_are_named(tmp_path, second, message):
    path = tmp_path / "p.jsonl"
    path.write_text(line() + "\n" + second + "\n")
    with pytest.raises(UserError) as error:
        list(read_records(path, "problem"))
    assert f"{path}:2" in str(error.value) and message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("column", "refused"),
    [
        ({"system": "Count by lows."}, False),  # a text that stands in the messages
        ({"system": "Base 8."}, True),
        ({"reasoning_effort": "low"}, True),  # a setting, which "lows" does not hold
        ({"loss": 0.5, "context": ""}, False),
    ],
)
def test_columns_that_change_what_is_trained(column, refused):
    roles = {"system": "Count by lows.", "user": "1?", "assistant": "2"}
    row = {"id": "a", "messages": [{"role": role, "content": text} for role, text in roles.items()]} | column
    with pytest.raises(UserError, match=f"the column {next(iter(column))} ") if refused else contextlib.nullcontext():
        check_record(row, "sft", "here")


def test_form_feeds_between_pages_are_no_damage():
    check_record(GOOD | {"reasoning": "code\f\n;; Page 2\v\fPage 3"}, "problem", "here")


def test_not_utf8(tmp_path):
    (tmp_path / "p.jsonl").write_bytes(line().encode() + b'\n{"id": "\xff"}\n')
    with pytest.raises(UserError, match=r"p\.jsonl:2: not UTF-8"):
        list(read_records(tmp_path / "p.jsonl", "problem"))


def test_missing_and_empty_files(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        list(read_records(tmp_path / "none.jsonl", "problem"))
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(UserError, match="holds no records"):
        list(read_records(tmp_path / "empty.jsonl", "problem"))


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    def breaks():
        yield {"id": "1"}
        raise KeyboardInterrupt

    write_jsonl(tmp_path / "r.jsonl", [{"id": "0"}])
    with pytest.raises(KeyboardInterrupt):
        write_jsonl(tmp_path / "r.jsonl", breaks())
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"r.jsonl": '{"id": "0"}\n'}


def test_unknown_gap_and_equal_sides(tmp_path):
    rows = pair_rows(3)
    write_jsonl(tmp_path / "p.jsonl", [rows[0] | {"gap": "huge"}])
    with pytest.raises(UserError, match="gap is 'huge'; it must be one of small, medium, large"):
        list(read_records(tmp_path / "p.jsonl", "pair"))
    write_jsonl(tmp_path / "p.jsonl", [rows[0] | {"rejected": rows[0]["chosen"]}])
    with pytest.raises(UserError, match="chosen and rejected are the same"):
        list(read_records(tmp_path / "p.jsonl", "pair"))


def test_mini_tasks_follow_the_table():
    prompt = [{"role": "user", "content": "?"}]
    hard = make_pairs("p", prompt, "hard", "r", "r~", rewritten="r*")
    sides = [(p["gap"], p["chosen"][0]["content"], p["rejected"][0]["content"], p["origin"]) for p in hard]
    assert sides == [
        ("small", "r*", "r", "hard*>hard"),
        ("medium", "r", "r~", "hard>~hard"),
        ("large", "r*", "r~", "hard*>~hard"),
    ]
    medium = make_pairs("p", prompt, "medium", "r", "r~")
    assert [(p["gap"], p["origin"]) for p in medium] == [("large", "med>~med")]
    assert [p["gap"] for p in make_pairs("p", prompt, "easy", "r", None, rewritten="r*")] == ["small"]


def test_overlength_is_dropped_whole_and_counted_or_refused(tmp_path):
    renderer = Renderer(make_tokenizer("qwen2"))
    rows = sft_rows(6)
    rows[2]["messages"][-1]["content"] *= 20
    write_jsonl(tmp_path / "s.jsonl", rows)
    examples = load_sft(DataConfig(str(tmp_path / "s.jsonl"), max_length=200, overlength="drop"), renderer)
    assert (len(examples.units), examples.dropped) == (5, 1)
    with pytest.raises(UserError, match=r"record 'p2' is \d+ tokens long, data.max_length is 200"):
        load_sft(DataConfig(str(tmp_path / "s.jsonl"), max_length=200), renderer)
    with pytest.raises(UserError, match="all 6 records are longer"):
        load_sft(DataConfig(str(tmp_path / "s.jsonl"), max_length=3, overlength="drop"), renderer)

    pairs = pair_rows(3)  # p0: large; p1, p2: triads
    rewrite = pairs[1]["chosen"]  # r* of p1, in its small and its large pair
    for pair in pairs:
        if pair["chosen"] == rewrite:
            pair["chosen"] = [{"role": "assistant", "content": rewrite[0]["content"] * 20}]
    write_jsonl(tmp_path / "p.jsonl", pairs)
    examples = load_pairs(DataConfig(str(tmp_path / "p.jsonl"), max_length=200, overlength="drop"), renderer, True)
    assert examples.dropped == 2 and sum(u.items for u in examples.units) == 5


def test_a_triad_has_three_unique_responses(tmp_path):
    write_jsonl(tmp_path / "p.jsonl", pair_rows(3))
    config = DataConfig(str(tmp_path / "p.jsonl"))
    grouped = load_pairs(config, Renderer(make_tokenizer("llama")), True)
    assert [(u.items, len(u.seqs)) for u in grouped.units] == [(1, 2), (3, 3), (3, 3)]
    assert [[p.gap for p in u.pairs] for u in grouped.units] == [[2], [0, 1, 2], [0, 1, 2]]
    alone = load_pairs(config, Renderer(make_tokenizer("llama")), False)
    assert [u.items for u in alone.units] == [1] * 7 and len(alone.sequences) == len(grouped.sequences) == 8
