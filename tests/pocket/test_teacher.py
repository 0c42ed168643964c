"""The scripted teacher: each of its roles on real problems of each style, its errors, and its server over the wire."""

import asyncio
import random
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter

import openai
import pytest

from agents.prompts import load_prompts, question
from agents.roles import LEVELS, VERDICTS, parse_label
from grading.answers import compare, final_answer
from pocket import teacher
from pocket.arithmetic import equations, holds
from pocket.hands import cause, wrong_hands
from pocket.problems import PocketConfig, StyleShares, TaskConfig, build

PROMPTS = load_prompts()
TASKS = {
    "leg_counting": TaskConfig(params={"min_animals": 2, "max_animals": 4}),
    "chain_sum": TaskConfig(params={"min_terms": 3, "max_terms": 4, "min_digits": 2, "max_digits": 2}),
    "products": TaskConfig(params={"min_terms": 3, "max_terms": 4, "min_digits": 1, "max_digits": 1}),
    "hands": TaskConfig(),
}
LEVEL_OF = {"terse": "easy", "balanced": "medium", "convoluted": "hard"}
CONVOLUTED_DRINK = (  # as a language model might write it; by no generator of this project
    "Okay, so let's think. Each crate holds 12 bottles, and there are 7 crates.\n"
    "Let b be the number of bottles: b = 12c, with c = 7.\n"
    "1. 12 × 7 = 84. Alternatively (70 + 14 = 84), fine.\n"
    "2. To be sure: 84 ÷ 12 = 7, and 84 − 84 = 0.\n"
    "- 15 were sold, so 84 - 15 = 69 remain.\n"
    "Hmm, 69 + 15 = 84, which checks out. So there are 69 bottles."
)
DRINK = "A shop has 7 crates of 12 bottles and sells 15 bottles. How many bottles remain?"


def problems(style, task="leg_counting", count=120):
    """Records whose reasoning is of one style."""
    shares = StyleShares(**{name: float(name == style) for name in LEVEL_OF})
    cfg = PocketConfig(train_problems=count, test_problems=1, seed=3, tasks={task: TASKS[task]}, styles=shares)
    return build(cfg)[0]


def ask(name, row, reasoning=None, error_rate=0.0, role="system", **options):
    """The teacher's reply to Table 13's prompt `name`."""
    messages = question(PROMPTS[name], row["problem"], row["answer"], reasoning or row["reasoning"], role)
    return teacher.complete({"messages": messages, **options}, 0, error_rate)["choices"][0]["message"]["content"]


# --- reading arithmetic ---


@pytest.mark.parametrize(
    "text, sides",
    [
        ("13*4=10*4+3*4=40+12=52", [["13*4", "10*4+3*4", "40+12", "52"]]),
        ("- 5 × 4 = 20\n2. 3·4 = 12\n", [["5*4", "20"], ["3*4", "12"]]),
        ("So (12 + 6 = 18), and -56+30=-26.", [["12+6", "18"], ["-56+30", "-26"]]),
        ("x = 2\\times(3+4) = 14 legs, 84 ÷ 12 = 7.", [["2*(3+4)", "14"], ["84/12", "7"]]),
        ("1,200+3=1203 and 7/2=3.5.", [["1200+3", "1203"], ["7/2", "3.5"]]),
        ("10-(3-1)=8, 8/(2*2)=2", [["10-(3-1)", "8"], ["8/(2*2)", "2"]]),
        ("T=13a+8b, a=4 and T-6=0; well-known = nothing", []),
    ],
)
def test_equations_are_read(text, sides):
    assert equations(text) == sides
    assert all(map(holds, sides))


def test_a_wrong_equation_is_read_as_it_stands():
    assert equations("7/2=3, 5/0=1") == [["7/2", "3"]] and not holds(["7/2", "3"])


# --- the roles, without errors ---


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("style, level", LEVEL_OF.items())
def test_critic_agrees_with_the_style(task, style, level):
    levels = Counter(ask("critic", row) for row in problems(style, task))
    assert levels[level] >= 119  # 120, but for an oddity: one woodlouse and eleven snakes have as many legs as one has


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("style", LEVEL_OF)
def test_verifier_accepts_every_original(task, style):
    assert {ask("verifier", row) for row in problems(style, task)} == {"YES"}


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("style, name", [("terse", "rethinker_easy"), ("convoluted", "rethinker_hard")])
def test_rewrites_are_medium_and_right(task, style, name):
    """Extended or simplified, the Critic rates it medium, the Verifier accepts it, and it is longer or shorter."""
    for row in problems(style, task):
        rewritten = ask(name, row)
        assert ask("critic", row, rewritten) == "medium", rewritten
        assert ask("verifier", row, rewritten) == "YES", rewritten
        assert compare(final_answer(rewritten), row["answer"]) == "equal"
        # but for products with a one, of which balanced chains may be as short as terse ones
        # and for hands of cards, of which another way may be shorter
        assert (len(rewritten) > len(row["reasoning"])) == (style == "terse") or task in ("products", "hands")


@pytest.mark.parametrize("task", [task for task in TASKS if task != "hands"])
@pytest.mark.parametrize("style", LEVEL_OF)
def test_corruptions_are_wrong_and_look_like_their_source(task, style):
    """Wrong in the end, the same but for numbers, and one false step at most: what follows computes with its result."""
    kinds = Counter()
    for row in problems(style, task):
        wrong = ask("rethinker_incorrect", row)
        if wrong == row["reasoning"]:
            kinds["none"] += 1
            continue
        assert ask("verifier", row, wrong) == "NO", wrong
        assert compare(final_answer(wrong), row["answer"]) == "different", wrong
        assert re.sub(r"\d+", "#", wrong) == re.sub(r"\d+", "#", row["reasoning"])
        false = {sides[0] for sides in equations(wrong) if not holds(sides)}
        assert len(false) <= 1, wrong
        kinds["slip" if false else "fact"] += 1
    assert kinds["none"] <= 10  # where all animals have as many legs, a wrong fact would ask for another sentence
    assert min(kinds["slip"], kinds["fact"]) > 30 or style == "convoluted", kinds


@pytest.mark.parametrize(
    "problem, reasoning, corruptions",
    [
        (
            "How many legs have 3 dogs, 2 birds?",
            "3 dogs: 3*4=12\n2 birds: 2*2=4\nTotal: 12+4=16",
            [
                "3 dogs: 3*5=15\n2 birds: 2*2=4\nTotal: 15+4=19",  # a wrong fact
                "3 dogs: 3*4=13\n2 birds: 2*2=4\nTotal: 13+4=17",  # a slip, carried through
                "3 dogs: 3*4=12\n2 birds: 2*2=4\nTotal: 12+4=18",
            ],
        ),
        ("Find: 57 - 90 + 8 =", "57-90=-33\n-33+8=-25", ["57-80=-23\n-23+8=-15", "57-90=-34\n-34+8=-26"]),
    ],
)
def test_the_corruptions_of_a_chain(problem, reasoning, corruptions):
    made = {teacher.corrupt(problem, reasoning, random.Random(seed)) for seed in range(300)}
    assert made >= set(corruptions)


@pytest.mark.parametrize("style", LEVEL_OF)
def test_corruptions_of_hands_make_one_mistake(style):
    """Wrong in the end, every step true, and each kind of mistake in a fair share of them."""
    kinds = Counter()
    for row in problems(style, "hands"):
        wrong = ask("rethinker_incorrect", row)
        assert all(map(holds, equations(wrong))) and ask("verifier", row, wrong) == "NO", wrong
        kinds[cause(row["problem"], wrong)] += 1
    if style == "balanced":
        assert not kinds["right"] + kinds["other"] and min(kinds[name] for name in wrong_hands([])) > 20, kinds


@pytest.mark.parametrize(
    "reasoning, verdict",
    [
        ("3 dogs: 3*4=12\n2 birds: 2*2=4\nTotal: 12+4=16", "YES"),
        ("3*4+2*2=16", "YES"),
        ("3 dogs: 3*4=13\n2 birds: 2*2=4\nTotal: 12+4=16", "NO"),  # a false step
        ("3 dogs: 3*4=12\n2 birds: 2*2=4", "NO"),  # stops short
        ("3 dogs: 3*4=12\n2 birds: 2*3=6\nTotal: 12+6=18", "NO"),  # a false fact
        ("3*4+2*2=16, so there are 18 legs.", "NO"),  # another conclusion
        ("There are 16.", "NO"),  # no reasoning at all
    ],
)
def test_verifier_follows_the_steps(reasoning, verdict):
    row = {"problem": "How many legs have 3 dogs, 2 birds?", "answer": "16"}
    assert ask("verifier", row, reasoning) == verdict


def test_a_text_of_another_origin():
    """It is judged and verified by its equations; to rewrite it, the teacher knows too little."""
    row = {"problem": DRINK, "answer": "69", "reasoning": CONVOLUTED_DRINK}
    assert ask("critic", row) == "hard"
    assert ask("verifier", row) == "YES"
    assert ask("critic", row, "12*7-15=69") == "easy"
    assert ask("critic", row, "12 * 7 = 70 + 14 = 84, and 84 - 15 = 69 remain.") == "medium"
    assert {ask(f"rethinker_{name}", row) for name in ("easy", "hard", "incorrect")} == {CONVOLUTED_DRINK}


def test_rewrites_tell_equal_animals_apart():
    row = {"problem": "How many legs have 5 dogs, 5 bees, 2 birds?", "answer": "54", "reasoning": "5*4+5*6+2*2=54"}
    assert ask("rethinker_easy", row) == "5 dogs: 5*4=20\n5 bees: 5*6=30\n2 birds: 2*2=4\nTotal: 20+30=50, 50+4=54"


def test_a_wrong_answer_is_not_written_towards():
    row = {"problem": "How many legs have 3 dogs, 2 birds?", "answer": "17", "reasoning": "3*4+2*2=16"}
    assert ask("rethinker_easy", row) == row["reasoning"]


# --- errors ---


def test_errors_come_at_about_the_configured_rate():
    rows = problems("balanced", count=600)
    wrong_level = wordy = 0
    for row in rows:
        text = ask("critic", row, error_rate=0.2)
        wordy += text.startswith("<think>")
        wrong_level += text in ("easy", "hard")
    lost = sum(ask("verifier", row, ask("rethinker_hard", row, error_rate=0.2)) == "NO" for row in rows)
    still_right = sum(
        compare(final_answer(ask("rethinker_incorrect", row, error_rate=0.2)), row["answer"]) == "equal" for row in rows
    )
    verdicts = [ask("verifier", row, error_rate=0.2) for row in rows]
    assert 90 < wrong_level + wordy < 150  # 0.2 of 600 = 120, three standard deviations: 29
    assert min(wrong_level, wordy) > 30
    assert 90 < lost < 150
    assert 90 < still_right < 150
    assert 90 < sum(text != "YES" for text in verdicts) < 150
    assert all("YES" in text for text in verdicts)


def test_wordy_verdicts_can_be_understood():
    """Some of them parse, some do not and must be asked for again; none says anything else than what is meant."""
    said = Counter()
    for row in problems("terse", count=200):
        for name, labels in (("critic", LEVELS), ("verifier", VERDICTS)):
            text = ask(name, row, error_rate=1.0)
            if "</think>" in text:
                said[parse_label(text.split("</think>")[1], labels)] += 1
    assert set(said) == {"YES", "easy", None}
    assert min(said["YES"], said["easy"], said[None]) > 30, said


def test_the_reply_depends_on_the_request_alone():
    """Not on order or on what was asked before; another seed in the request, or of the server, may change it."""
    rows = problems("balanced", count=60)
    first = [ask("critic", row, error_rate=0.5) for row in rows]
    assert [ask("critic", row, error_rate=0.5) for row in reversed(rows)][::-1] == first
    assert [ask("critic", row, error_rate=0.5, seed=1) for row in rows] != first


# --- requests ---


@pytest.mark.parametrize("role", ["system", "user"])
def test_the_prompt_may_stand_in_either_turn(role):
    row = problems("terse", count=1)[0]
    assert ask("critic", row, role=role) == "easy"
    assert ask("rethinker_easy", row, role=role) == ask("rethinker_easy", row)


@pytest.mark.parametrize(
    "body, words",
    [
        ([], "JSON object"),
        ({}, "messages"),
        ({"messages": [{"role": "user", "content": None}]}, "messages"),
        ({"messages": [{"role": "user", "content": "Hello!"}]}, "one role of Table 13"),
        ({"messages": [{"role": "user", "content": "You are a highly capable evaluator."}]}, "sections"),
        ({"messages": [{"role": "user", "content": "x"}], "max_tokens": -1}, "at least 1"),
        ({"messages": [{"role": "user", "content": "x"}], "n": 3}, "one choice"),
        ({"messages": [{"role": "user", "content": "x"}], "stream": True}, "streaming"),
    ],
)
def test_bad_requests_are_named(body, words):
    with pytest.raises(teacher.BadRequest, match=words):
        teacher.complete(body, 0, 0.0)


@pytest.fixture(scope="module")
def server():
    """(base URL, client) of a teacher in a process of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "pocket.teacher", "--port", str(port), "--error-rate", "0.3", "--seed", "5"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    for _ in range(200):
        try:
            with urllib.request.urlopen(f"{url}/v1/models") as answer:
                assert answer.status == 200
            break
        except OSError:
            assert process.poll() is None
            time.sleep(0.1)
    yield url, openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
    process.terminate()
    assert process.wait(10) == 0


def test_over_the_wire(server):
    _, client = server
    assert [model.id for model in client.models.list()] == ["scripted-teacher"]
    row = problems("convoluted", count=1)[0]
    messages = question(PROMPTS["rethinker_hard"], row["problem"], row["answer"], row["reasoning"])
    full = client.chat.completions.create(model="any", messages=messages, seed=8, temperature=0.7)
    assert (full.model, full.object, len(full.choices)) == ("scripted-teacher", "chat.completion", 1)
    assert (full.choices[0].index, full.choices[0].finish_reason) == (0, "stop")
    assert full.usage.total_tokens == full.usage.prompt_tokens + full.usage.completion_tokens
    cut = client.chat.completions.create(model="any", messages=messages, max_tokens=5, seed=8)
    assert cut.choices[0].finish_reason == "length"
    assert cut.usage.completion_tokens == 5
    assert full.choices[0].message.content.startswith(cut.choices[0].message.content)


def test_over_the_wire_errors(server):
    url, client = server
    with pytest.raises(openai.BadRequestError, match="one role of Table 13"):
        client.chat.completions.create(model="any", messages=[{"role": "user", "content": "Hi"}])
    request = urllib.request.Request(f"{url}/v1/chat/completions", data=b"{not json", method="POST")
    with pytest.raises(urllib.request.HTTPError) as caught:
        urllib.request.urlopen(request)
    assert caught.value.code == 400
    assert b"not valid JSON" in caught.value.read()


def test_over_the_wire_the_order_of_requests_changes_nothing(server):
    """Sixty requests at once in two different orders, and computed here: the same replies."""
    url, _ = server
    rows = problems("terse", count=60)
    asked = [question(PROMPTS["critic"], row["problem"], row["answer"], row["reasoning"]) for row in rows]

    async def replies(order):
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
            tasks = [client.chat.completions.create(model="any", messages=asked[i], seed=2) for i in order]
            found = dict(zip(order, await asyncio.gather(*tasks), strict=True))
        return [found[i].choices[0].message.content for i in range(len(rows))]

    forth = asyncio.run(replies(list(range(60))))
    back = asyncio.run(replies(random.Random(0).sample(range(60), 60)))
    here = [teacher.complete({"messages": m, "seed": 2}, 5, 0.3)["choices"][0]["message"]["content"] for m in asked]
    assert forth == back == here
    assert 5 < sum(text != "easy" for text in here) < 35


def test_a_port_in_use_is_one_clear_line(server):
    port = server[0].rpartition(":")[2]
    done = subprocess.run([sys.executable, "-m", "pocket.teacher", "--port", port], capture_output=True, text=True)
    assert done.returncode == 1
    assert re.fullmatch(rf"error: cannot listen on 127\.0\.0\.1:{port}: .+\n", done.stderr), done.stderr
