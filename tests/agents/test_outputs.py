"""Traces -> records and report, on traces written by hand."""

import math

import pytest

from agents.outputs import incorrect_response, level_sample, pair_rows, records
from agents.tally import Tally
from errors import UserError
from tests.support.crv_cli import keys

MADE = {
    "models": {"critic": "c", "rethinker": "r", "verifier": "v"},
    "prompts": {f"rethinker_{mode}": f"hash-{mode}" for mode in ("easy", "hard", "incorrect")},
    "sampling": "temperature=0.7",
    "seed": 0,
}
PLAIN = keys(response_style="plain", rejected_answer="none")


def rethought(mode, round, text, status="ok"):
    calls = [{"key": f"{round:07x}" + "0" * 25, "status": status, "prompt_tokens": 10, "completion_tokens": 5}]
    return {"step": "rethinker", "mode": mode, "round": round, "text": text, "calls": calls}


def judged(agent, round, label, **more):
    calls = [{"key": "c0ffee0", "status": "ok", "prompt_tokens": 3, "completion_tokens": 1}]
    return {"step": agent, "round": round, "label": label, "votes": {label: 1}, "calls": calls, **more}


def trace(id, level, outcome="kept", reason=None, origin=None, rounds=0, rewritten=None, incorrect=None, steps=()):
    return {
        "id": id,
        "problem": f"problem {id}",
        "answer": "7",
        "reasoning": f"original {id}",
        "level": level,
        "outcome": outcome,
        "reason": reason,
        "origin": origin,
        "rounds": rounds,
        "rewritten": rewritten,
        "incorrect": incorrect,
        "steps": list(steps),
    }


TRACES = [
    trace(
        "a",
        "medium",
        origin="med",
        incorrect="wrong a",
        steps=[judged("critic", 0, "medium"), judged("verifier", 0, "YES"), rethought("incorrect", 3, "wrong a")],
    ),
    trace(
        "b",
        "hard",
        origin="hard*",
        rounds=2,
        rewritten="second b",
        incorrect=None,
        steps=[
            judged("critic", 0, "hard"),
            rethought("hard", 1, "first b"),
            judged("verifier", 1, "YES", answer_check="differs"),
            rethought("hard", 2, "second b"),
            judged("verifier", 2, "YES", answer_check="agrees"),
            judged("critic", 2, "medium"),
            rethought("incorrect", 1, "right again") | {"answer_check": "agrees"},
        ],
    ),
    trace(
        "c",
        "easy",
        "discarded",
        "rerated_hard",
        steps=[
            judged("critic", 0, "easy"),
            rethought("easy", 1, "first c"),
            judged("verifier", 1, "YES"),
            judged("critic", 1, "hard"),
        ],
    ),
    trace("d", None, "quarantined", "critic_invalid", steps=[judged("critic", 0, None)]),
    trace(
        "e",
        "medium",
        origin="med*",
        rounds=1,
        rewritten="better e",
        incorrect="wrong e",
        steps=[rethought("easy", 1, "better e"), rethought("incorrect", 1, "wrong e")],
    ),
]


def rows(name, traces=TRACES):
    chosen = dict.fromkeys(("easy", "medium", "hard"))
    return [row for trace in traces for file, row in records(trace, PLAIN, MADE, chosen) if file == name]


def chains(name):
    return {row["id"]: (row["origin"], row["reasoning"]) for row in rows(name)}


def test_sft_takes_the_verified_chain():
    assert chains("sft") == {
        "a": ("med", "original a"),
        "b": ("hard*", "second b"),
        "e": ("med*", "better e"),
    }


def test_ablations_take_what_their_stage_would_have_seen():
    medium = {"a": ("med", "original a"), "e": ("med", "original e")}
    assert chains("sft_c") == medium
    assert chains("sft_cr") == medium | {"b": ("hard*", "first b"), "c": ("easy*", "first c")}
    assert {origin for origin, _ in chains("sft_original").values()} == {"med", "hard", "easy", "unrated"}


def test_pairs_of_a_rewritten_medium_start_from_the_rewrite():
    pairs = {row["id"]: (row["chosen"][0]["content"], row["rejected"][0]["content"]) for row in rows("pairs")}
    box = "\n\nThe final answer is \\boxed{7}."
    assert pairs == {
        "a/large": (f"original a{box}", "wrong a"),
        "b/small": (f"second b{box}", f"original b{box}"),
        "e/large": (f"better e{box}", "wrong e"),
    }


def test_every_chain_names_its_call():
    found = {row["id"]: row["provenance"] for row in rows("pairs")}
    better, original = found["b/small"]["chosen"], found["b/small"]["rejected"]
    assert (better["by"], better["round"], better["call"]) == ("rethinker_hard", 2, "0000002" + "0" * 25)
    assert (better["model"], better["prompt_hash"], better["sampling"]) == ("r", "hash-hard", "temperature=0.7")
    assert (better["seed"], better["attempts"]) == (2, 1)
    assert better["votes"] == {"easy": 0, "medium": 1, "hard": 0, "YES": 1, "NO": 0}
    assert (original["by"], original["model"], original["call"]) == ("input", "", "")
    assert original["votes"]["hard"] == 1 and original["votes"]["YES"] == 0
    assert found["a/large"]["chosen"]["votes"] == {"easy": 0, "medium": 1, "hard": 0, "YES": 1, "NO": 0}
    assert (found["a/large"]["rejected"]["by"], found["a/large"]["rejected"]["round"]) == ("rethinker_incorrect", 3)
    assert found["e/large"]["chosen"]["by"] == "rethinker_easy"
    assert [row["provenance"]["call"] for row in rows("sft")] == ["", better["call"], "0000001" + "0" * 25]
    first = next(row for row in rows("sft_cr") if row["id"] == "b")
    assert (first["provenance"]["round"], first["provenance"]["votes"]["YES"]) == (1, 1)


def test_a_given_solution_is_kept():
    (row,) = rows("sft", [{**TRACES[0], "solution": "It is \\boxed{7}, of course."}])
    assert row["messages"][1]["content"] == "original a\n\nIt is \\boxed{7}, of course."


@pytest.mark.parametrize(("chain", "end"), [("So 3 + 5 = 8", "\\boxed{8}."), ("Nobody knows", "Nobody knows")])
def test_the_incorrect_chain_may_keep_its_own_answer(chain, end):
    own = keys(response_style="plain", rejected_answer="from_reasoning")
    assert incorrect_response({**TRACES[0], "incorrect": chain}, own).endswith(end)


def test_the_report_adds_up():
    report = Tally()
    for item in TRACES:
        report.add(item, pair_rows(item, PLAIN, MADE))
    result = report.result()
    assert result["problems"] == {"input": 5, "kept": 3, "rejected": 2, "discarded": 1, "quarantined": 1}
    assert result["rejected_by_reason"] == {"critic_invalid": 1, "rerated_hard": 1}
    assert result["levels_before"] == {"easy": 1, "medium": 2, "hard": 1, "unrated": 1}
    assert result["levels_after"] == {"easy": 0, "medium": 2, "hard": 1, "unrated": 2}
    assert result["kept_by_origin"] == {"hard*": 1, "med": 1, "med*": 1}
    assert result["kept_by_rounds"] == {"0": 1, "1": 1, "2": 1}
    assert result["pairs"] == {"small": 1, "medium": 0, "large": 2}
    assert result["verifier_conflicts"] == {"yes_but_wrong_answer": 1}
    assert result["incorrect_chains"] == {"made": 2, "none": 1, "tries_agrees": 1}
    assert result["calls"]["rethinker"] == {"calls": 7, "completion_tokens": 35, "ok": 7, "prompt_tokens": 70}
    assert result["calls"]["critic"]["calls"] == 6
    small = next(row for row in rows("pairs") if row["gap"] == "small")
    ratio = len(small["chosen"][0]["content"]) / len(small["rejected"][0]["content"])
    assert result["length_ratio"]["small"]["abs_log"] == round(abs(math.log(ratio)), 3)
    assert [row["id"] for row in rows("rejected")] == ["c", "d"]


def test_a_lost_problem_refuses_the_report():
    report = Tally()
    for item in TRACES[:3]:
        report.add(item, [])
    report.check(3, "out")
    for total in (2, 4):
        with pytest.raises(UserError, match=f"3 traces of 3 problems, but there are {total}.*Nothing is exported"):
            report.check(total, "out")
    report.add(TRACES[0], [])
    with pytest.raises(UserError, match=r"out/traces\.jsonl holds 4 traces of 3 problems, but there are 4"):
        report.check(4, "out")


def test_level_samples_are_equal_and_repeatable():
    ids = {
        "easy": [f"e{n}" for n in range(50)],
        "medium": [f"m{n}" for n in range(9)],
        "hard": [f"h{n}" for n in range(70)],
    }
    least = level_sample(ids, "min", 0)
    assert {len(chosen) for chosen in least.values()} == {9} and least == level_sample(ids, "min", 0)
    assert least["hard"] != level_sample(ids, "min", 1)["hard"] and least["medium"] == set(ids["medium"])
    assert {level: len(chosen) for level, chosen in level_sample(ids, 20, 0).items()} == {
        "easy": 20,
        "medium": 9,
        "hard": 20,
    }
    assert level_sample(ids, None, 0) == {"easy": None, "medium": None, "hard": None}
