"""The student as Critic: thresholds, many chains at a time, and what the walk makes of the levels."""

import asyncio
import random
import threading
from types import SimpleNamespace

import pytest
from test_crv import WRONG, live

from agents.measured import Levels, StudentConfig, StudentCritic, find_levels
from tests.support.scripted_endpoint import script


def fits(n=300):
    rng = random.Random(3)
    return [SimpleNamespace(nll=rng.lognormvariate(0.5, 0.4), rsr=rng.lognormvariate(1, 0.3)) for _ in range(n)]


def shares(levels, found):
    said = [levels.of(fit.nll, fit.rsr) for fit in found]
    return [said.count(level) / len(said) for level in ("easy", "medium", "hard")]


@pytest.mark.parametrize(("hard", "easy"), [(0.33, 0.33), (0.1, 0.5), (0.0, 0.2), (0.4, 0.0), (0.6, 0.39)])
def test_the_shares_of_the_input_set_the_thresholds(hard, easy):
    found = fits()
    levels = find_levels(StudentConfig(hard_share=hard, easy_share=easy), found)
    assert shares(levels, found) == pytest.approx([easy, 1 - easy - hard, hard], abs=1e-9)


def test_fixed_thresholds_stay_what_they_are():
    assert find_levels(StudentConfig(hard_rsr=2.5, easy_nll=1.5), fits()) == Levels(2.5, 1.5)
    mixed = find_levels(StudentConfig(hard_rsr=2.5, easy_share=0.2), found := fits())
    assert mixed.hard_rsr == 2.5 and shares(mixed, found)[0] == pytest.approx(0.2)


def test_a_surprising_chain_is_hard_a_terse_one_easy():
    levels = Levels(hard_rsr=3.0, easy_nll=2.0)
    for nll, rsr, level in ((1, 1, "medium"), (3, 1, "easy"), (1, 4, "hard"), (3, 4, "hard"), (2, 3, "medium")):
        assert levels.of(nll, rsr) == level


def critic(measure, rates=True):
    return StudentCritic(measure, Levels(3.0, 2.0), lambda problem: [problem], rates, "0af3")


def test_what_is_asked_meanwhile_is_measured_together():
    batches, first_may_end = [], threading.Event()

    def measure(texts):
        batches.append(len(texts))
        first_may_end.wait(10)
        return [len(chain) for _, chain in texts]

    async def ask():
        asked = critic(measure)
        tasks = [asyncio.create_task(asked.fit({}, "x"))]
        await asyncio.sleep(0.05)
        tasks += [asyncio.create_task(asked.fit({}, "x" * n)) for n in range(2, 9)]
        await asyncio.sleep(0.05)
        tasks[3].cancel()  # nobody waits for it any more
        first_may_end.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    found = asyncio.run(ask())
    assert batches == [1, 7] and found[:3] + found[4:] == [1, 2, 3, 5, 6, 7, 8]


def test_an_error_reaches_all_who_wait():
    def measure(texts):
        raise RuntimeError("out of memory")

    async def ask():
        asked = critic(measure)
        return await asyncio.gather(*(asked.fit({}, "x") for _ in range(3)), return_exceptions=True)

    assert [str(error) for error in asyncio.run(ask())] == ["out of memory"] * 3


def by_length(texts):
    """Long chains are hard, very short ones easy."""
    return [
        SimpleNamespace(tokens=len(c), nll=3.0 if len(c) < 15 else 1.0, rsr=9.0 if len(c) > 60 else 1.0)
        for _, c in texts
    ]


def test_the_student_rates_in_the_critics_place(tmp_path):
    rewrites = ["3 dogs have 4 legs each, " * 4 + "so 3 * 4 = 12.", "3 dogs, 4 legs each: 3 * 4 = 12."]
    answer = script(easy=rewrites[0], hard=rewrites[1], verifier="YES", incorrect=WRONG)
    trace, roles, _ = live(answer, tmp_path, student=critic(by_length))
    assert roles == ["easy", "verifier", "hard", "verifier", "incorrect"]  # no Critic was asked
    rated = [step for step in trace["steps"] if step["step"] == "critic"]
    assert [step["label"] for step in rated] == ["easy", "hard", "medium"]
    assert [step["calls"] for step in rated] == [[], [], []] and rated[0]["fit"]["nll"] == 3.0
    assert (trace["outcome"], trace["origin"], trace["rounds"], trace["rewritten"]) == ("kept", "easy*", 2, rewrites[1])


def test_beside_a_critic_it_is_only_noted(tmp_path):
    answer = script(critic="medium", verifier="YES", incorrect=WRONG)
    trace, roles, _ = live(answer, tmp_path, student=critic(by_length, rates=False))
    assert roles == ["critic", "verifier", "incorrect"] and trace["level"] == "medium"
    assert trace["steps"][0]["fit"]["nll"] == 3.0 and len(trace["steps"][0]["calls"]) == 1
