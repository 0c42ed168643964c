"""The life of one problem: every branch of §3.2, against a real server."""

import asyncio

import pytest

from agents.client import Endpoint
from agents.crv import life_of
from agents.journal import Journal
from agents.keys import Sampling
from agents.limits import EndpointConfig
from agents.pool import Pool
from agents.prompts import load_prompts
from agents.roles import Agents
from agents.tally import Tally
from tests.support.crv_cli import keys
from tests.support.scripted_endpoint import Server, reply, script

PROBLEM = {"id": "p1", "problem": "How many legs have 3 dogs?", "answer": "12", "reasoning": "3 * 4 = 12."}
WRONG = "3 dogs have 3 legs each. So 3 * 3 = 9."


async def with_agents(url, folder, use, student=None, **given):
    """`await use(agents)`, all three agents behind one endpoint."""
    journal = Journal(folder / "journal.jsonl")
    config = EndpointConfig(base_url=url, model="m", retries=1, timeout=20)
    endpoint = Pool([Endpoint("teacher", config, has_answered=True)])
    bound = dict.fromkeys(("critic", "rethinker", "verifier"), endpoint)
    try:
        cfg = keys(**{"sampling": Sampling(max_tokens=100)} | given)
        return await use(Agents(bound, journal, load_prompts(), cfg, student))
    finally:
        journal.close()
        await endpoint.close()


def live(answer, tmp_path, problem=PROBLEM, **given):
    """Walk one problem. Returns (trace, the requests' roles in order, the requests)."""
    with Server(answer) as server:
        trace = asyncio.run(with_agents(server.url, tmp_path, lambda agents: life_of(problem, agents), **given))
    return trace, [asked.role for asked in server.asked], server.asked


def labels(trace, agent):
    return [step["label"] for step in trace["steps"] if step["step"] == agent]


# --- medium ---


def test_medium_verified(tmp_path):
    trace, roles, _ = live(script(critic="medium", verifier="YES", incorrect=WRONG), tmp_path)
    assert roles == ["critic", "verifier", "incorrect"]
    assert (trace["outcome"], trace["origin"], trace["rounds"], trace["reason"]) == ("kept", "med", 0, None)
    assert (trace["level"], trace["rewritten"], trace["incorrect"]) == ("medium", None, WRONG)


def test_medium_that_fails_verification_is_discarded(tmp_path):
    trace, roles, _ = live(script(critic="medium", verifier="NO"), tmp_path)
    assert roles == ["critic", "verifier"]
    assert (trace["outcome"], trace["reason"], trace["level"]) == ("discarded", "medium_failed_verification", "medium")


def test_medium_that_fails_verification_may_be_rewritten(tmp_path):
    answer = script(critic="medium", verifier=["NO", "YES"], easy="3 dogs, 4 legs each: 3 * 4 = 12.", incorrect=WRONG)
    trace, roles, _ = live(answer, tmp_path, medium_failed="rewrite")
    assert roles == ["critic", "verifier", "easy", "verifier", "critic", "incorrect"]
    assert (trace["outcome"], trace["origin"], trace["rounds"]) == ("kept", "med*", 1)
    assert trace["rewritten"] == "3 dogs, 4 legs each: 3 * 4 = 12."


# --- easy and hard ---


@pytest.mark.parametrize("level", ["easy", "hard"])
def test_rewritten_verified_and_rated_medium(tmp_path, level):
    answer = script(critic=[level, "medium"], verifier="YES", incorrect=WRONG, **{level: "3 times 4 legs = 12."})
    trace, roles, asked = live(answer, tmp_path)
    assert roles == ["critic", level, "verifier", "critic", "incorrect"]
    assert (trace["outcome"], trace["origin"], trace["rounds"]) == ("kept", f"{level}*", 1)
    assert trace["rewritten"] == "3 times 4 legs = 12."
    chains = [a.reasoning for a in asked]  # who judges what: r, r, r*, r*, r
    assert chains == [PROBLEM["reasoning"]] * 2 + ["3 times 4 legs = 12."] * 2 + [PROBLEM["reasoning"]]


def test_failed_verification_goes_back_to_the_rethinker(tmp_path):
    answer = script(critic=["hard", "medium"], verifier=["NO", "YES"], hard=["one", "two"], incorrect=WRONG)
    trace, roles, asked = live(answer, tmp_path)
    assert roles == ["critic", "hard", "verifier", "hard", "verifier", "critic", "incorrect"]
    assert (trace["rewritten"], trace["rounds"]) == ("two", 2)
    assert [a.reasoning for a in asked if a.role == "hard"] == [PROBLEM["reasoning"]] * 2
    seeds = [a.seed for a in asked if a.role == "hard"]
    assert seeds[0] != seeds[1]  # the same question under the same seed could only fail again


def test_the_failed_rewrite_itself_may_be_sent_back(tmp_path):
    answer = script(critic=["hard", "medium"], verifier=["NO", "YES"], hard=["one", "two"], incorrect=WRONG)
    _, _, asked = live(answer, tmp_path, retry_from="rewrite")
    assert [a.reasoning for a in asked if a.role == "hard"] == [PROBLEM["reasoning"], "one"]


def test_three_failures_discard(tmp_path):
    trace, roles, _ = live(script(critic="easy", verifier="NO", easy=["one", "two", "three"]), tmp_path)
    assert roles == ["critic"] + ["easy", "verifier"] * 3
    assert (trace["outcome"], trace["reason"]) == ("discarded", "failed_verification")
    assert trace["incorrect"] is None and trace["origin"] is None


def test_a_rewrite_that_loses_the_answer_fails_whatever_the_verifier_says(tmp_path):
    answer = script(
        critic=["easy", "medium"], verifier="YES", easy=["So 3 * 4 = 13.", "So 3 * 4 = 12."], incorrect=WRONG
    )
    trace, roles, _ = live(answer, tmp_path)
    assert roles == ["critic", "easy", "verifier", "easy", "verifier", "critic", "incorrect"]
    checks = [s["answer_check"] for s in trace["steps"] if s["step"] == "verifier"]
    assert checks == ["differs", "agrees"] and labels(trace, "verifier") == ["YES", "YES"]
    assert trace["rewritten"] == "So 3 * 4 = 12."


def test_the_answer_check_can_be_switched_off(tmp_path):
    answer = script(critic=["easy", "medium"], verifier="YES", easy="So 3 * 4 = 13.", incorrect=WRONG)
    trace, _, _ = live(answer, tmp_path, check_answer=False)
    assert trace["rewritten"] == "So 3 * 4 = 13."


def test_rated_hard_again_is_rewritten_further(tmp_path):
    """An extension that overshoots is simplified: the mode follows the new level, the source is the rewrite."""
    answer = script(critic=["easy", "hard", "medium"], verifier="YES", easy="long", hard="short", incorrect=WRONG)
    trace, roles, asked = live(answer, tmp_path)
    assert roles == ["critic", "easy", "verifier", "critic", "hard", "verifier", "critic", "incorrect"]
    assert (trace["rewritten"], trace["origin"], trace["rounds"]) == ("short", "easy*", 2)
    assert next(a for a in asked if a.role == "hard").reasoning == "long"
    assert labels(trace, "critic") == ["easy", "hard", "medium"]


def test_rated_hard_again_may_be_discarded(tmp_path):
    answer = script(critic=["easy", "hard"], verifier="YES", easy="long")
    trace, roles, _ = live(answer, tmp_path, recritique="discard")
    assert roles == ["critic", "easy", "verifier", "critic"]
    assert (trace["outcome"], trace["reason"]) == ("discarded", "rerated_hard")


def test_three_iterations_in_all(tmp_path):
    """A failed verification and two unsuitable ratings use up the three together."""
    answer = script(critic=["hard", "hard", "easy"], verifier=["NO", "YES", "YES"], hard=["one", "two", "three"])
    trace, roles, asked = live(answer, tmp_path)
    assert roles == ["critic", "hard", "verifier", "hard", "verifier", "critic", "hard", "verifier", "critic"]
    assert (trace["outcome"], trace["reason"]) == ("discarded", "rerated_easy")
    assert [a.reasoning for a in asked if a.role == "hard"] == [PROBLEM["reasoning"]] * 2 + ["two"]


def test_a_copy_is_no_rewrite(tmp_path):
    answer = script(
        critic=["easy", "medium"], verifier="YES", easy=[PROBLEM["reasoning"], "3 * 4 legs = 12"], incorrect=WRONG
    )
    trace, roles, _ = live(answer, tmp_path)
    assert roles == ["critic", "easy", "easy", "verifier", "critic", "incorrect"] and trace["rounds"] == 2
    trace, _, _ = live(script(critic="easy", easy=PROBLEM["reasoning"]), tmp_path, {**PROBLEM, "id": "p2"})
    assert (trace["outcome"], trace["reason"]) == ("discarded", "unchanged")


# --- stages (Table 6) ---


def test_stage_c_keeps_medium_and_asks_nobody_else(tmp_path):
    trace, roles, _ = live(script(critic="medium", incorrect=WRONG), tmp_path, stages="c")
    assert roles == ["critic", "incorrect"] and trace["origin"] == "med"
    trace, roles, _ = live(script(critic="hard"), tmp_path, {**PROBLEM, "id": "p2"}, stages="c")
    assert roles == ["critic"] and (trace["outcome"], trace["reason"]) == ("discarded", "rated_hard")


def test_stage_cr_takes_the_rewrite_unverified(tmp_path):
    trace, roles, _ = live(script(critic="easy", easy="So 13.", incorrect=WRONG), tmp_path, stages="cr")
    assert roles == ["critic", "easy", "incorrect"]
    assert (trace["outcome"], trace["origin"], trace["rewritten"]) == ("kept", "easy*", "So 13.")


# --- the incorrect chain ---


def test_no_incorrect_chain_where_none_is_wanted(tmp_path):
    trace, roles, _ = live(script(critic="medium", verifier="YES"), tmp_path, incorrect_tries=0)
    assert roles == ["critic", "verifier"] and (trace["outcome"], trace["incorrect"]) == ("kept", None)


def test_an_incorrect_chain_that_stays_right_is_given_up_after_three_tries(tmp_path):
    trace, roles, asked = live(script(critic="medium", verifier="YES", incorrect="Oddly, 3 + 9 = 12."), tmp_path)
    assert roles == ["critic", "verifier", "incorrect", "incorrect", "incorrect"]
    assert (trace["outcome"], trace["incorrect"]) == ("kept", None)
    assert len({a.seed for a in asked if a.role == "incorrect"}) == 3


def test_an_incorrect_chain_must_state_an_answer(tmp_path):
    answer = script(critic="medium", verifier="YES", incorrect=["Who knows?", PROBLEM["reasoning"], WRONG])
    trace, _, _ = live(answer, tmp_path)
    checks = [s["answer_check"] for s in trace["steps"] if s["step"] == "rethinker"]
    assert checks == ["none", "unchanged", "differs"] and trace["incorrect"] == WRONG


def test_the_check_of_incorrect_chains_can_be_switched_off(tmp_path):
    answer = script(critic="medium", verifier="YES", incorrect="Oddly, 3 + 9 = 12.")
    trace, _, _ = live(answer, tmp_path, check_incorrect=False)
    assert trace["incorrect"] == "Oddly, 3 + 9 = 12."


def test_code_has_no_answer_to_compare(tmp_path):
    answer = script(critic=["easy", "medium"], verifier="YES", easy="def f(): return 13", incorrect="def f(): return 9")
    trace, _, _ = live(answer, tmp_path, {**PROBLEM, "domain": "code"})
    assert (trace["outcome"], trace["incorrect"]) == ("kept", "def f(): return 9")
    assert {s["answer_check"] for s in trace["steps"] if "answer_check" in s} == {"unchecked"}


def test_a_silent_rethinker_costs_the_pairs_and_not_the_problem(tmp_path):
    trace, _, _ = live(script(critic="medium", verifier="YES", incorrect=reply("", "content_filter")), tmp_path)
    assert (trace["outcome"], trace["incorrect"]) == ("kept", None)


# --- guards ---


def test_a_rewrite_that_fails_a_guard_is_written_again_and_nobody_is_asked_about_it(tmp_path):
    talk, good = "As requested, more steps: 3 * 4 = 12.", "3 dogs, 4 legs each: 3 * 4 = 12."
    answer = script(critic=["easy", "medium"], easy=[talk, good], verifier="YES", incorrect=WRONG)
    trace, roles, _ = live(answer, tmp_path)
    assert roles == ["critic", "easy", "easy", "verifier", "critic", "incorrect"]
    assert (trace["rewritten"], trace["rounds"]) == (good, 2)
    assert [s.get("guard") for s in trace["steps"] if s["step"] == "rethinker"] == ["meta", None, None]


def test_a_rewrite_that_fails_guards_to_the_end_is_discarded_under_the_guards_name(tmp_path):
    trace, roles, _ = live(script(critic="easy", easy="I'm sorry, but I can't do that."), tmp_path)
    assert roles == ["critic", "easy", "easy", "easy"]
    assert (trace["outcome"], trace["reason"]) == ("discarded", "guard:refusal")
    report = Tally()
    report.add(trace, [])
    assert report.result()["guards"] == {"easy": {"refusal": 3}, "hard": {}, "incorrect": {}}
    assert report.result()["rejected_by_reason"] == {"guard:refusal": 1}


def test_an_incorrect_chain_that_gives_itself_away_is_made_again(tmp_path):
    answer = script(critic="medium", verifier="YES", incorrect=["Mistakenly, 3 * 4 = 13.", WRONG])
    trace, _, _ = live(answer, tmp_path)
    assert trace["incorrect"] == WRONG
    assert [s.get("guard") for s in trace["steps"] if s["step"] == "rethinker"] == ["giveaway", None]


def test_guards_can_be_switched_off(tmp_path):
    talk = "As requested, more steps: 3 * 4 = 12."
    answer = script(critic=["easy", "medium"], easy=talk, verifier="YES", incorrect="Mistakenly, 3 * 4 = 13.")
    trace, _, _ = live(answer, tmp_path, guards=False)
    assert (trace["rewritten"], trace["incorrect"]) == (talk, "Mistakenly, 3 * 4 = 13.")


# --- a Verifier that solves (§3.2.3) ---

SOLVE = {"verifier_mode": "solve"}


def test_solve_does_not_show_the_answer_and_grades_what_comes_back(tmp_path):
    answer = script(
        critic=["easy", "medium"], easy=["one", "two"], incorrect=WRONG,
        solve=["<think>3 dogs…</think>So \\boxed{13}.", "Then it is \\boxed{12.0}."],
    )  # fmt: skip
    trace, roles, asked = live(answer, tmp_path, **SOLVE)
    assert roles == ["critic", "easy", "solve", "easy", "solve", "critic", "incorrect"]
    solving = [a for a in asked if a.role == "solve"]
    assert [(a.answer, a.reasoning) for a in solving] == [("", "one"), ("", "two")]
    assert not any(PROBLEM["answer"] in message["content"] for a in solving for message in a.body["messages"])
    assert labels(trace, "verifier") == ["NO", "YES"] and trace["rewritten"] == "two"


def test_solving_is_voted_on_and_says_no_where_no_answer_comes(tmp_path):
    answer = script(critic="medium", solve=["12", "I cannot tell.", "\\boxed{9}"])
    trace, roles, _ = live(answer, tmp_path, **SOLVE, votes=3)
    assert roles == ["critic"] * 3 + ["solve"] * 3
    assert trace["steps"][1]["votes"] == {"YES": 1, "NO": 2} and trace["reason"] == "medium_failed_verification"


def test_a_judge_that_disagrees_with_the_answer_is_counted(tmp_path):
    answer = script(critic=["easy", "medium"], easy=["So 13.", "So 12."], verifier=["YES", "NO"])
    trace, _, _ = live(answer, tmp_path, max_rounds=2)
    verdicts = [(s["label"], s["answer_check"]) for s in trace["steps"] if s["step"] == "verifier"]
    assert verdicts == [("YES", "differs"), ("NO", "agrees")]
    report = Tally()
    report.add(trace, [])
    assert report.result()["verifier_conflicts"] == {"no_but_right_answer": 1, "yes_but_wrong_answer": 1}


# --- code ---

CODE = {"id": "c1", "problem": "Print twice the number.", "answer": "(see solution)", "domain": "code",
        "reasoning": "Double it.\n```python\nprint(2 * int(input()))\n```",
        "tests": {"inputs": ["1", "5"], "outputs": ["2", "10"]}}  # fmt: skip
RIGHT = "Read, add it to itself, print.\n```python\nn = int(input())\nprint(n + n)\n```"
FALSE = "Read, square it, print.\n```python\nn = int(input())\nprint(n * n + 1)\n```"


def test_code_is_checked_by_its_tests(tmp_path):
    answer = script(
        critic=["easy", "medium"], easy=[FALSE, "No program.", RIGHT], verifier="YES", incorrect=["None.", RIGHT, FALSE]
    )
    trace, _, _ = live(answer, tmp_path, CODE)
    checks = [(s["step"], s["answer_check"]) for s in trace["steps"] if "answer_check" in s]
    assert checks == [("verifier", "differs"), ("verifier", "none"),
                      ("rethinker", "none"), ("rethinker", "agrees"), ("rethinker", "differs")]  # fmt: skip
    assert (trace["rewritten"], trace["incorrect"]) == ("No program.", FALSE)


def test_code_is_solved_by_its_tests(tmp_path):
    answer = script(critic=["easy", "medium"], easy=["one", "two"], solve=[FALSE, RIGHT], incorrect=FALSE)
    trace, _, _ = live(answer, tmp_path, CODE, **SOLVE)
    assert labels(trace, "verifier") == ["NO", "YES"] and trace["rewritten"] == "two"
    untested = {key: value for key, value in CODE.items() if key != "tests"} | {"id": "c2"}
    _, roles, _ = live(script(critic="medium", verifier="NO"), tmp_path, untested, **SOLVE)
    assert roles == ["critic", "verifier"]  # nothing to grade by: judged


def test_a_chain_of_thought_without_code_is_unchecked(tmp_path):
    """In Bespoke-Stratos the program stands in the solution; a chain that never held one is not held to it."""
    answer = script(critic=["easy", "medium"], easy="Read, double, print.", verifier="YES", incorrect="Square it.")
    trace, _, _ = live(answer, tmp_path, CODE | {"reasoning": "Double it."})
    assert {s["answer_check"] for s in trace["steps"] if "answer_check" in s} == {"unchecked"}
    assert trace["incorrect"] == "Square it."
