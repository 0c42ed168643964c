"""Rows as public datasets have them (their cards' columns) -> records: nothing is tied to another question, nothing is
lost without a word."""

import json
import re

import pytest

from config import load
from data.records import read_records
from data.sources import Config, main
from errors import UserError

THINK = "<think>\n{}\n</think>\n\n{}"


def turns(*said, names=("role", "content"), roles=("user", "assistant"), system=None):
    """Turns of a user and an assistant, one after the other."""
    found = [{names[0]: roles[place % 2], names[1]: text} for place, text in enumerate(said)]
    return ([{names[0]: "system", names[1]: system}] if system else []) + found


def sharegpt(*said, **more):
    return turns(*said, names=("from", "value"), roles=("human", "gpt"), **more)


@pytest.fixture
def read(tmp_path, capsys):
    """read(rows, *words) -> (records, what was printed); no records are an empty list and the error."""

    def reads(rows, *words, kind="problem"):
        path, out = tmp_path / "rows.jsonl", tmp_path / "out.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        try:
            main(load(Config, [f"out={out}", f"path={path}", *words]))
        except UserError as error:
            return [], str(error)
        return list(read_records(out, kind)), capsys.readouterr().out

    return reads


SEVEN = {"problem": "3 + 4?", "answer": "7", "reasoning": "count", "solution": "So \\boxed{7}."}
REPLY = THINK.format("count", "So \\boxed{7}.")
BASE8 = "All numbers are in base 8."
OPENR1 = {
    "problem": "3 + 4?", "solution": "The teacher's: $7$.", "answer": "7", "problem_type": "Algebra",
    "question_type": "math-word-problem", "source": "olympiads", "uuid": "u", "is_reasoning_complete": [True, True],
    "generations": [REPLY, THINK.format("guess", "\\boxed{8}")], "correctness_math_verify": [True, False],
    "correctness_llama": None, "finish_reasons": None, "correctness_count": 1, "messages": turns("3 + 4?", REPLY),
}  # fmt: skip


@pytest.mark.parametrize(
    ("row", "change"),
    [
        ({"messages": turns("3 + 4?", REPLY), "num_tokens": 9, "source": "s"}, {}),  # Mixture-of-Thoughts
        ({"messages": turns("3 + 4?", REPLY, system=BASE8)}, {"problem": f"{BASE8}\n\n3 + 4?"}),
        ({"system": BASE8, "conversations": sharegpt("3 + 4?", REPLY)}, {"problem": f"{BASE8}\n\n3 + 4?"}),
        ({"system": BASE8, "messages": turns("3 + 4?", REPLY, system=BASE8)}, {"problem": f"{BASE8}\n\n3 + 4?"}),
        ({"difficulty": 7, "source": "s", "domain": "science", "conversations": sharegpt("3 + 4?", REPLY)},
         {"domain": "science"}),  # OpenThoughts3
        ({"system": "Put it into <|begin_of_thought|> tags.", "conversations": sharegpt(
            "Return your final response within \\boxed{}. 3 + 4?",
            "<|begin_of_thought|>\n\ncount\n\n<|end_of_thought|>\n\n<|begin_of_solution|>\n\nSo \\boxed{7}.\n\n"
            "<|end_of_solution|>")}, {}),  # Bespoke-Stratos-17k, Sky-T1-data-17k
        # without think tags: the reply is the chain
        ({"messages": turns("3 + 4?", "3 + 4 = 7, so \\boxed{7}.")},
         {"reasoning": "3 + 4 = 7, so \\boxed{7}.", "solution": ""}),
        # the thought in a key of its own, content in parts, roles in capitals
        ({"messages": [{"role": "User", "content": [{"type": "text", "text": "3 + 4?"}]},
                       {"role": "assistant", "content": "So \\boxed{7}.", "reasoning_content": "count"}]}, {}),
        # an answer column outranks the box
        ({"messages": turns("3 + 4?", THINK.format("count", "So \\boxed{7.0}.")), "expected_answer": 7},
         {"solution": "So \\boxed{7.0}."}),
        (OPENR1, {}),
        (OPENR1 | {"correctness_math_verify": [False, False], "correctness_llama": [True, False]}, {}),
        # Nemotron's post-training data, reasoning on and off
        ({"input": turns("3 + 4?"), "output": REPLY, "category": "math", "reasoning": "on", "generator": "R1",
          "used_in_training": "no", "version": "v1", "system_prompt": "detailed thinking on"}, {}),
        ({"input": turns("3 + 4?"), "output": "Add: \\boxed{7}.", "reasoning": "off", "system_prompt": ""},
         {"reasoning": "Add: \\boxed{7}.", "solution": ""}),
        ({"input": turns("3 + 4?", system=BASE8), "output": REPLY}, {"problem": f"{BASE8}\n\n3 + 4?"}),
        ({"input": "3 + 4?", "output": REPLY, "source": "s"}, {}),  # OpenCodeReasoning's columns
        # Alpaca
        ({"instruction": "Add.", "input": "3 + 4", "output": REPLY}, {"problem": "Add.\n3 + 4"}),
        ({"instruction": "3 + 4?", "input": "", "output": REPLY, "system": BASE8, "history": []},
         {"problem": f"{BASE8}\n\n3 + 4?"}),
        # EasyDistill 2, and a thought that only its own column has
        ({"instruction": "3 + 4?", "response": REPLY, "thought": "count", "solution": "So \\boxed{7}."}, {}),
        ({"question": "3 + 4?", "thinking": "count", "response": "So \\boxed{7}."}, {}),
        ({"question": "3 + 4?", "thinking": "7", "response": "So \\boxed{7}."}, {"reasoning": "7"}),
        ({"instruction": "3 + 4?", "response": "<|begin_of_thought|>count<|end_of_thought|><|begin_of_solution|>x = 7."
          "<|end_of_solution|>"}, {"solution": "x = 7."}),
        ({"problem": "3 + 4?", "solution": "Add: \\boxed{7}.", "answer": "7", "level": 1, "unique_id": "u"},
         {"reasoning": "Add: \\boxed{7}.", "solution": ""}),  # MATH's columns
        ({"problem": "3 + 4?", "expected_answer": "7", "generated_solution": REPLY, "inference_mode": "cot"}, {}),
        ({"question": "3 + 4?", "answer": "So \\boxed{7}.", "reasoning": "count"}, {}),
        # chains: OmniThought's objects, plain texts
        ({"question": "3 + 4?", "reasoning": [{"full_response": REPLY, "Cognitive_Difficulty": 3}]}, {}),
        ({"instruction": "Add.", "input": "3 + 4", "responses": [REPLY]}, {"problem": "Add.\n3 + 4"}),
    ],
    ids=str,
)  # fmt: skip
def test_one_chain(read, row, change):
    records, printed = read([row])
    assert len(records) == 1, printed
    kept = {key: records[0][key] for key in SEVEN}
    assert kept == SEVEN | {key: value for key, value in change.items() if key != "domain"}
    assert records[0]["domain"] == change.get("domain", "math")


TWO = ("What is 12 * 3?", "12 * 3 = \\boxed{36}", "And that over 4?", "36 / 4 = \\boxed{9}")
PICTURE = [{"type": "text", "text": "3?"}, {"type": "image_url", "image_url": {"url": "u"}}]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"conversations": sharegpt(*TWO)}, "with several exchanges or none"),
        ({"instruction": TWO[2], "output": TWO[3], "history": [list(TWO[:2])]}, "with several exchanges or none"),
        ({"conversations": sharegpt(*TWO[:3])}, "whose turns do not alternate"),
        ({"conversations": sharegpt(*TWO)[1:]}, "whose turns do not alternate"),
        ({"conversations": sharegpt("?", REPLY)[:1] * 2 + sharegpt("?", REPLY)[1:]}, "whose turns do not alternate"),
        ({"conversations": []}, "whose turns do not alternate"),
        ({"conversations": None}, "whose turns do not alternate"),
        ({"messages": [{"role": "tool", "content": "t"}]}, "with a turn of role tool"),
        ({"messages": [{"role": "assistant", "content": None, "tool_calls": [{}]}]}, "with tool calls"),
        ({"messages": [{"role": "user", "content": PICTURE}, *turns("?", REPLY)[1:]]}, "a message that is no text"),
        ({"system": "A", "messages": turns("?", REPLY, system="B")}, "with two system prompts"),
        ({"messages": turns("?", "<think>on and on, \\boxed{7}")}, "with a thought that does not end"),
        ({"messages": turns("?", "<think>a</think>b<think>c</think>\\boxed{7}")}, "not end, or with several"),
        ({"messages": turns("?", "Hello!")}, "without a tagged thought and solution"),
        ({"prompt": "?", "response": REPLY, "thinking": "another"}, "with two thoughts"),
        ({"messages": turns("?", REPLY), "tools": "[{}]"}, "with tools, for which a record has no place"),
        (SEVEN | {"options": ["6", "7"]}, r"with options, .*\(ignore='\[options\]' drops it\)"),
        ({"messages": turns("?", REPLY), "input": "3"}, "with input, for which"),
        (OPENR1 | {"generations": []}, "without a chain"),
        (OPENR1 | {"correctness_math_verify": [True]}, "with an unexpected type"),
        (OPENR1 | {"correctness_math_verify": [False, False]}, "a chain judged to be wrong"),
        (OPENR1 | {"correctness_math_verify": ["True", "False"]}, "2 with an unexpected type"),
        (SEVEN | {"answer": float("nan"), "solution": ""}, "without an answer"),
        (SEVEN | {"reasoning": "\ud800"}, "refused: reasoning holds half a surrogate pair"),
        (OPENR1 | {"generations": [None, None], "correctness_math_verify": None}, "with an unexpected type"),
        ({"input": [turns("?")], "output": REPLY}, "with an unexpected type"),
        ({"instruction": "Add.", "input": ["3"], "output": REPLY}, "with an unexpected type"),
        ({"instruction": "Add.", "history": ["3"], "output": REPLY}, "with an unexpected type of history"),
        ({"instruction": "Add.", "history": 3, "output": REPLY}, "with an unexpected type of history"),
    ],
    ids=str,
)
def test_what_is_no_problem_is_counted_with_its_place(read, row, reason):
    records, printed = read([{"messages": turns("3 + 4?", REPLY)}, row])
    assert len(records) == 1 and records[0]["problem"] == "3 + 4?"
    assert re.search(rf"left out: .*{reason}.*\(first: rows.jsonl:2\)", printed), printed


def test_the_sum_is_the_input_and_unused_columns_are_named(read):
    rows = [
        OPENR1,
        OPENR1,
        {"messages": turns(*TWO)},
        {"messages": turns("4?", REPLY), "options": [], "tag": "t"},
        {"a": 1},
    ]
    records, printed = read(rows)
    assert len(records) == 2
    assert "5 rows: 2 kept + 5 left out = 7" in printed  # of two rows two chains
    for reason in ("2 a chain judged to be wrong", "1 duplicate", "1 with other columns than the first row's"):
        assert reason in printed
    assert "columns that were not used: a, correctness_count, is_reasoning_complete, messages, problem_type" in printed
    assert "solution" in printed and ", tag" in printed and "options" not in printed


PAIR = {"prompt": turns("3 + 4?"), "chosen": turns("", "7")[1:], "rejected": turns("", "8")[1:]}
LONG = {side: turns(*TWO[:3], last) for side, last in (("chosen", "36 / 4 = 9"), ("rejected", "36 / 4 = 8"))}
LONG_PAIR = {"prompt": turns(*TWO[:3]), "chosen": turns("", "36 / 4 = 9")[1:], "rejected": turns("", "36 / 4 = 8")[1:]}
REPLIES = {"chosen": "7", "rejected": "8"}
WHOLE = {side: turns("3 + 4?", text) for side, text in REPLIES.items()}


def under(system, pair):
    return pair | {"prompt": [{"role": "system", "content": system}, *pair["prompt"]]}


@pytest.mark.parametrize(
    ("row", "pair"),
    [
        ({"prompt": "3 + 4?", **REPLIES}, PAIR),
        (PAIR, PAIR),
        (WHOLE, PAIR),  # an implicit prompt
        ({"prompt": "3 + 4?", "prompt_id": "i", "messages": WHOLE["chosen"], "score_chosen": 8.5, **WHOLE}, PAIR),
        ({"prompt": turns("3 + 4?"), **WHOLE}, PAIR),
        ({"prompt": TWO[0], **LONG}, LONG_PAIR),  # Capybara's: the prompt is the first turn, the sides go on
        ({"prompt": turns(*TWO[:3]), **LONG}, LONG_PAIR),
        (LONG, LONG_PAIR),
        ({"prompt": turns(TWO[0]), **{side: LONG[side][1:] for side in LONG}}, LONG_PAIR),
        ({"instruction": "Add.", "input": "3 + 4", **REPLIES}, PAIR | {"prompt": turns("Add.\n3 + 4")}),
        ({"instruction": TWO[2], "history": [list(TWO[:2])], "chosen": "36 / 4 = 9", "rejected": "36 / 4 = 8"},
         LONG_PAIR),
        ({"system": BASE8, "question": "3 + 4?", **REPLIES}, under(BASE8, PAIR)),  # Orca's pairs
        ({"system": BASE8, **WHOLE}, under(BASE8, PAIR)),
        ({"prompt": turns("3 + 4?", system=BASE8), **WHOLE}, under(BASE8, PAIR)),
        ({side: turns("3 + 4?", text, system=BASE8) for side, text in REPLIES.items()}, under(BASE8, PAIR)),
        ({"prompt": "3 + 4?"} | {side: turns("3 + 4?", text, system=BASE8) for side, text in REPLIES.items()},
         under(BASE8, PAIR)),
        # LLaMA-Factory's ShareGPT pairs
        ({"conversations": sharegpt(*TWO[:3], system=BASE8), "chosen": {"from": "gpt", "value": "36 / 4 = 9"},
          "rejected": {"from": "gpt", "value": "36 / 4 = 8"}}, under(BASE8, LONG_PAIR)),
    ],
    ids=str,
)  # fmt: skip
def test_a_pair_is_tied_to_its_own_question(read, row, pair):
    records, printed = read([row], "gap=large", kind="pair")
    assert [{key: record[key] for key in PAIR} for record in records] == [pair], printed


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (LONG | {"rejected": turns("3?", "3", "4?", "5")}, "whose sides part before their last reply"),
        (WHOLE | {"prompt": "5 + 6?"}, "whose sides begin with another prompt than their own"),
        (REPLIES, "without a prompt"),
        ({side: f"\n\nHuman: 3 + 4?\n\nAssistant: {text}" for side, text in REPLIES.items()}, "without a prompt"),
        (WHOLE | {"system": "A", "prompt": turns("3 + 4?", system="B")}, "with two system prompts"),
        (PAIR | {"tools": "[{}]"}, "with tools, for which"),
        (PAIR | {"chosen": []}, "with an empty side"),
        (PAIR | {"chosen": PAIR["rejected"]}, "refused: chosen and rejected are the same"),
        (PAIR | {"chosen": 7}, "with an unexpected type"),
    ],
    ids=str,
)
def test_what_is_no_pair_is_counted(read, row, reason):
    records, printed = read([row], "gap=large", kind="pair")
    assert (not records and f": 1 {reason}"[:40] in printed) or reason in printed
    assert "(first: rows.jsonl:1)" in printed


@pytest.mark.parametrize(
    "row",
    [
        {"messages": turns(*TWO, system=BASE8), "id": "7"},
        {"system": BASE8, "conversations": sharegpt(*TWO)},
        {"system": BASE8, "instruction": TWO[2], "input": "", "output": TWO[3], "history": [list(TWO[:2])]},
        {"input": turns(*TWO[:3], system=BASE8), "output": TWO[3]},
        {"prompt": turns(*TWO[:3], system=BASE8), "completion": turns(*TWO)[3:]},  # TRL's
        {"conversations": {"from": ["system", "human", "gpt", "human", "gpt"], "value": [BASE8, *TWO]}},
    ],
    ids=str,
)
def test_conversations_are_carried_whole_as_sft_records(read, row):
    records, printed = read([row], "records=sft", kind="sft")
    assert [record["messages"] for record in records] == [turns(*TWO, system=BASE8)], printed


@pytest.mark.parametrize("flag", [{"weight": 0}, {"loss": False}, {"train": False}, {"masked": True}], ids=str)
def test_a_turn_that_is_not_to_be_trained_stays_one(read, flag):
    """Whatever its trainer calls that."""
    first, reply, *rest = turns(*TWO)
    (record,), printed = read([{"messages": [first | {"loss": None}, reply | flag, *rest]}], "records=sft", kind="sft")
    assert record["messages"] == [first, reply | {"weight": 0}, *rest], printed


def test_a_reply_that_is_not_wanted_is_left_out(read):
    rows = [{"prompt": "1?", "completion": str(n), "label": n == 1} for n in (1, 2)]
    (record,), printed = read(rows, "records=sft", kind="sft")
    assert record["messages"][-1]["content"] == "1" and "1 with a reply that is labelled as not wanted" in printed


def test_preferences_are_no_sft_records(read):
    printed = read([PAIR], "records=sft")[1]
    assert "cannot tell messages from the columns prompt, chosen, rejected; name them: columns='{messages" in printed
    (record,), _ = read([PAIR | {"messages": WHOLE["chosen"]}], "records=sft", kind="sft")
    assert record["messages"] == WHOLE["chosen"]
