"""The pocket run's problems: the same every time, right reasoning, no label, nothing of the test in training."""

import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import pytest
from reasoning_gym.arithmetic.leg_counting import ANIMALS

from data.records import check_record, write_jsonl
from errors import UserError
from grading.answers import compare, final_answer
from pocket.arithmetic import equations, evaluate, holds
from pocket.problems import WRITERS, PocketConfig, StyleShares, TaskConfig, build, read_facts

MIXED = PocketConfig(
    train_problems=300,
    test_problems=90,
    tasks={
        "leg_counting": TaskConfig(weight=2, params={"min_animals": 2, "max_animals": 4}),
        "chain_sum": TaskConfig(weight=1, params={"min_terms": 3, "max_terms": 4, "min_digits": 2, "max_digits": 2}),
    },
)

PRODUCTS = {"products": TaskConfig(params={"min_terms": 3, "max_terms": 4, "min_digits": 1, "max_digits": 1})}


def test_same_config_same_records():
    assert build(MIXED) == build(MIXED)
    other, _ = build(replace(MIXED, seed=7))
    assert {row["id"] for row in other}.isdisjoint({row["id"] for row in build(MIXED)[0]})


def test_test_problems_do_not_depend_on_the_training_seed():
    assert build(replace(MIXED, seed=7))[1] == build(MIXED)[1]


def test_records_are_valid_and_unlabelled():
    train, test = build(MIXED)
    assert (len(train), len(test)) == (300, 90)
    for number, row in enumerate(train):
        check_record(row, "problem", f"line {number}")
        assert set(row) == {"id", "problem", "answer", "reasoning"}
    assert Counter(row["task"] for row in test) == {"leg_counting": 60, "chain_sum": 30}
    assert len({row["id"] for row in train + test}) == 390


def test_order_and_ids_do_not_give_the_style_away():
    train, _ = build(MIXED)
    lengths = [len(row["reasoning"]) for row in train]
    thirds = [sum(lengths[i : i + 100]) / 100 for i in (0, 100, 200)]
    assert max(thirds) < 1.5 * min(thirds)
    by_id = [len(row["reasoning"]) for row in sorted(train, key=lambda row: row["id"])]
    thirds = [sum(by_id[i : i + 100]) / 100 for i in (0, 100, 200)]
    assert max(thirds) < 1.5 * min(thirds)


def test_no_problem_twice_even_where_there_are_few():
    """One kind of animal, at most two of it: 72 texts in all, so a naive draw would repeat itself."""
    tiny = {"leg_counting": TaskConfig(params={"min_animals": 1, "max_animals": 1, "max_instances": 2})}
    train, test = build(replace(MIXED, tasks=tiny, train_problems=40, test_problems=20))
    texts = [row["problem"] for row in train + test]
    assert len(set(texts)) == 60
    with pytest.raises(UserError, match="different problems"):
        build(replace(MIXED, tasks=tiny, train_problems=70, test_problems=20))


def test_seeds_must_differ():
    with pytest.raises(UserError, match="different seeds"):
        build(replace(MIXED, test_seed=0))


def test_unknown_task_is_named():
    with pytest.raises(UserError, match="rubiks_cube"):
        build(replace(MIXED, tasks={"rubiks_cube": TaskConfig()}))


@pytest.mark.parametrize("style", ["terse", "balanced", "convoluted"])
def test_every_style_is_right(style):
    """Each equation holds and the last number is the answer, in every style of every task."""
    shares = StyleShares(**{name: float(name == style) for name in ("terse", "balanced", "convoluted")})
    train, _ = build(replace(MIXED, styles=shares, tasks=MIXED.tasks | PRODUCTS | {"hands": TaskConfig()}))
    for row in train:
        found = equations(row["reasoning"])
        assert found, row
        assert all(map(holds, found)), row
        assert compare(final_answer(row["reasoning"]), row["answer"]) == "equal", row
        assert any(evaluate(sides[-1]) == int(row["answer"]) for sides in found), row


def test_products_are_right_for_large_herds():
    """Every number of legs there is, times up to 60, is split into equations that hold."""
    for count in range(1, 61):
        for legs in sorted(set(ANIMALS.values())):
            text = WRITERS["leg_counting"]["balanced"]([(count, "dog", legs), (1, "cat", 4)], None)
            assert all(map(holds, equations(text))), text
            assert final_answer(text) == str(count * legs + 4)


@pytest.mark.parametrize(
    "problem, found",
    [
        ("How many legs have 1 praying mantis, 3 sea slugs?", [(1, "praying mantis", 6), (3, "sea slug", 0)]),
        ("State the final answer to the following arithmetic problem: 57 - 7 + 70 =", [57, -7, 70]),
        ("Solve the following multiplication: 7 * 1 * 12.", [7, 1, 12]),
        ("Solve the following multiplication: 7 * 0 * 12.", None),
        ("How many legs have 3 unicorns, 2 dogs?", None),
        ("What do these cards score: 3 dogs, 2 ants?", [(3, "dogs", 8), (2, "ants", 5)]),
        ("What do these cards score: 3 unicorns, 2 ants?", None),
        ("A shop has 7 crates of 12 bottles and sells 15 bottles. How many bottles remain?", None),
    ],
)
def test_facts_are_in_the_text(problem, found):
    facts = read_facts(problem)
    assert (facts and facts[1]) == found


def test_one_kind_of_animal_has_no_total():
    assert WRITERS["leg_counting"]["balanced"]([(3, "dog", 4)], None) == "3 dogs: 3*4=12"


def test_styles_differ_in_length():
    mean = {}
    for style in WRITERS["leg_counting"]:
        shares = StyleShares(**{name: float(name == style) for name in WRITERS["leg_counting"]})
        train, _ = build(replace(MIXED, styles=shares))
        mean[style] = sum(len(row["reasoning"]) for row in train) / len(train)
    assert mean["terse"] * 2 < mean["balanced"] < mean["convoluted"] / 2


def test_products_ask_for_reasoning():
    """No zero among the factors, and no demand to answer without reasoning."""
    train, test = build(replace(MIXED, tasks=PRODUCTS))
    for row in train + test:
        assert "only the result" not in row["problem"] and row["answer"] != "0", row


def test_shares_are_kept():
    """A terse chain is one equation, a balanced one has no sentence; what is left is convoluted."""
    train, _ = build(replace(MIXED, styles=StyleShares(terse=1, balanced=2, convoluted=3)))
    terse = sum(len(equations(row["reasoning"])) == 1 for row in train)
    convoluted = sum(len(row["reasoning"]) > 200 or "check" in row["reasoning"] for row in train)
    assert terse == 50
    assert abs(convoluted - 150) <= 15


def test_command_line(tmp_path):
    """The command writes both files, the same bytes in another process whatever its hash seed."""
    contents = []
    for run in ("a", "b"):
        words = [f"out={tmp_path / run}", "train_problems=12", "test_problems=5"]
        done = subprocess.run(
            [sys.executable, "-m", "pocket.problems", *words],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONHASHSEED": str(len(contents))},
        )
        assert done.returncode == 0, done.stderr
        contents.append([(tmp_path / run / name).read_bytes() for name in ("problems.jsonl", "test.jsonl")])
    assert contents[0] == contents[1]
    assert [len(file.splitlines()) for file in contents[0]] == [12, 5]
    assert json.loads(contents[0][1].splitlines()[0])["task"] == "leg_counting"


def test_command_line_refuses_an_unknown_key():
    done = subprocess.run(
        [sys.executable, "-m", "pocket.problems", "train_problem=12"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "did you mean train_problems" in done.stderr
    assert "Traceback" not in done.stderr


def test_problems_to_avoid(tmp_path):
    """Products of single digits are few, so another seed has some of them too, unless they are to be avoided."""
    tasks = {"products": TaskConfig(params={"min_terms": 3, "max_terms": 3, "min_digits": 1, "max_digits": 1})}
    first = PocketConfig(train_problems=100, test_problems=100, seed=1, test_seed=2, tasks=tasks)
    second = replace(first, seed=3, test_seed=4)
    known = {row["problem"] for row in build(first)[1]}
    assert known & {row["problem"] for rows in build(second) for row in rows}
    write_jsonl(tmp_path / "test.jsonl", build(first)[1])
    train, test = build(replace(second, avoid=[str(tmp_path / "test.jsonl")]))
    assert len(train) == len(test) == 100 and not known & {row["problem"] for row in train + test}


@pytest.mark.parametrize(
    "keys, said",
    [
        ({"styles": StyleShares(0, 0, 0)}, "styles: one of the weights must be above 0"),
        ({"tasks": {"leg_counting": TaskConfig(weight=0)}}, "tasks: one of the weights must be above 0"),
        ({"tasks": {"leg_counting": TaskConfig(params={"legs": 2})}}, r"leg_counting\.params: .* argument 'legs'"),
        (
            {"tasks": {"leg_counting": TaskConfig(params={"min_animals": 9, "max_animals": 2})}},
            "max_animals must be >=",
        ),
        ({"tasks": {"hands": TaskConfig(params={"max_kinds": 1})}}, r"hands\.params: 2 <= min_kinds <= max_kinds"),
    ],
)
def test_a_mixture_that_cannot_be_drawn(keys, said):
    with pytest.raises(UserError, match=said):
        build(replace(MIXED, **keys))
