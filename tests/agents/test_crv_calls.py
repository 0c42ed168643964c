"""The calls under a problem: replies that cannot be used, votes, sampling, the journal, many problems at once."""

import asyncio

import pytest
from test_crv import PROBLEM, WRONG, live, with_agents

from agents.crv import life_of, run_problems
from agents.keys import Sampling
from errors import UserError
from tests.support.scripted_endpoint import Server, error, reply, script

# --- replies that cannot be used ---


def test_an_invalid_label_is_asked_for_again_with_another_seed(tmp_path):
    answer = script(critic=["It is neither easy nor hard.", "hm", "medium"], verifier="YES", incorrect=WRONG)
    trace, roles, asked = live(answer, tmp_path)
    assert roles[:4] == ["critic", "critic", "critic", "verifier"] and trace["level"] == "medium"
    assert [c["status"] for c in trace["steps"][0]["calls"]] == ["invalid", "invalid", "ok"]
    assert len({a.seed for a in asked[:3]}) == 3


def test_an_agent_that_never_says_a_label_quarantines(tmp_path):
    trace, roles, _ = live(script(critic="I would rather not say that it is medium."), tmp_path)
    assert roles == ["critic"] * 3
    assert (trace["outcome"], trace["reason"], trace["level"]) == ("quarantined", "critic_invalid", None)
    trace, _, _ = live(script(critic="easy", easy="one", verifier="Perhaps"), tmp_path, {**PROBLEM, "id": "p2"})
    assert (trace["outcome"], trace["reason"], trace["level"]) == ("quarantined", "verifier_invalid", "easy")


def test_verdicts_are_read_behind_the_thought(tmp_path):
    answer = script(
        critic=["<think>easy? or hard?</think>Looking at it again:\nhard", reply("medium", reasoning="so easy")],
        hard="<think>they want it shorter</think>Here is the simplified reasoning process:\n3 * 4 = 12 legs",
        verifier="<think>NO? NO!</think>\n\n**YES**",
        incorrect=f"</think>{WRONG}",
    )
    trace, _, _ = live(answer, tmp_path)
    assert (trace["origin"], trace["rewritten"], trace["incorrect"]) == ("hard*", "3 * 4 = 12 legs", WRONG)


def test_a_truncated_answer_gets_twice_the_room_once(tmp_path):
    half = reply("<think>First, the user wants", "length")
    answer = script(critic=["easy", "medium"], easy=[half, "3 * 4 legs = 12"], verifier="YES", incorrect=WRONG)
    trace, _, asked = live(answer, tmp_path)
    assert [a.body["max_tokens"] for a in asked if a.role == "easy"] == [100, 200]
    assert (trace["outcome"], trace["rewritten"], trace["rounds"]) == ("kept", "3 * 4 legs = 12", 1)


def test_a_rewrite_that_never_ends_quarantines(tmp_path):
    half = reply("A fine beginning, and then", "length")
    trace, roles, _ = live(script(critic="easy", easy=half), tmp_path)
    assert roles == ["critic", "easy", "easy"]
    assert (trace["outcome"], trace["reason"]) == ("quarantined", "rethinker_truncated")


def test_twice_the_room_may_not_exist(tmp_path):
    def answer(asked):
        if asked.role == "critic":
            return "easy"
        return (
            reply("half", "length") if asked.body["max_tokens"] == 100 else error(400, "maximum context length is 150")
        )

    trace, _, _ = live(answer, tmp_path)
    assert (trace["outcome"], trace["reason"]) == ("quarantined", "rethinker_truncated")


@pytest.mark.parametrize(
    ("given", "reason", "tries"),
    [
        (reply(None), "critic_empty", 3),
        (reply(None, reasoning="it is medium"), "critic_misrouted", 3),
        (reply("medium", "length"), "critic_truncated", 2),
        (reply("", "content_filter"), "critic_filtered", 1),
    ],
)
def test_an_unusable_reply_is_never_an_answer(tmp_path, given, reason, tries):
    trace, roles, _ = live(script(critic=given), tmp_path)
    assert roles == ["critic"] * tries
    assert (trace["outcome"], trace["reason"]) == ("quarantined", reason)


def test_a_prompt_that_does_not_fit_quarantines_its_problem_alone(tmp_path):
    def answer(asked):
        return error(400, "maximum context length is 4096 tokens") if asked.role == "easy" else "easy"

    trace, roles, _ = live(answer, tmp_path)
    assert roles == ["critic", "easy"]
    assert (trace["outcome"], trace["reason"]) == ("quarantined", "rethinker_too_long")
    assert "4096" in trace["steps"][-1]["calls"][0]["detail"]


# --- votes (Table 1) ---


def test_the_majority_of_three_decides(tmp_path):
    answer = script(critic=["easy", "medium", "medium"], verifier=["NO", "YES", "YES"], incorrect=WRONG)
    trace, roles, _ = live(answer, tmp_path, votes=3)
    assert roles == ["critic"] * 3 + ["verifier"] * 3 + ["incorrect"]
    assert [s["votes"] for s in trace["steps"][:2]] == [{"easy": 1, "medium": 2}, {"YES": 2, "NO": 1}]


def test_a_tie_of_three_is_drawn_to_five(tmp_path):
    answer = script(critic=["easy", "medium", "hard", "hard"], hard="3 * 4 legs = 12", verifier="NO")
    trace, roles, _ = live(answer, tmp_path, votes=3, max_rounds=1)
    assert roles[:6] == ["critic"] * 5 + ["hard"] and trace["level"] == "hard"
    ties = ["easy", "medium", "hard", "easy", "medium"]
    trace, roles, _ = live(script(critic=ties), tmp_path, {**PROBLEM, "id": "p2"}, votes=3)
    assert roles == ["critic"] * 5
    assert (trace["outcome"], trace["reason"]) == ("quarantined", "critic_unresolved")


def test_a_vote_that_abstains_does_not_count(tmp_path):
    answer = script(critic=["?", "?", "?", "easy", "medium", "easy"], easy="3 * 4 legs = 12", verifier="NO")
    trace, roles, _ = live(answer, tmp_path, votes=3, max_rounds=1)
    assert roles.count("critic") == 3 + 4 and trace["level"] == "easy"
    assert trace["steps"][0]["votes"] == {"easy": 3, "medium": 1}


# --- sampling and the journal ---


def test_the_papers_sampling_is_sent(tmp_path):
    _, _, asked = live(script(critic="medium", verifier="NO"), tmp_path, sampling=Sampling())
    sent = asked[0].body
    assert (sent["temperature"], sent["top_p"], sent["top_k"], sent["max_tokens"]) == (0.7, 0.9, 50, 16384)
    assert sent["model"] == "m" and isinstance(sent["seed"], int)


def test_sampling_can_be_left_out_for_hosts_that_refuse_it(tmp_path):
    sampling = Sampling(top_p=None, top_k=None, send_seed=False)
    _, _, asked = live(script(critic="medium", verifier="NO"), tmp_path, sampling=sampling)
    assert set(asked[0].body) == {"model", "messages", "temperature", "max_tokens"}


def test_a_second_life_costs_nothing_and_is_the_same(tmp_path):
    answer = script(critic=["hard", "medium"], verifier=["NO", "YES"], hard=["one", "two"], incorrect=WRONG)
    first, roles, _ = live(answer, tmp_path)
    again, none, _ = live(lambda asked: pytest.fail("asked again"), tmp_path)
    assert first == again and len(roles) == 7 and none == []


def test_a_raised_max_tokens_asks_again_only_for_what_was_cut(tmp_path):
    half = reply("half of it", "length")
    first, _, _ = live(script(critic="easy", easy=half), tmp_path)
    assert first["reason"] == "rethinker_truncated"
    answer = script(easy="3 * 4 legs = 12", critic="medium", verifier="YES", incorrect=WRONG)
    second, roles, _ = live(answer, tmp_path, sampling=Sampling(max_tokens=400))
    assert roles == ["easy", "verifier", "critic", "incorrect"] and second["outcome"] == "kept"


def test_twice_the_room_that_is_not_there_is_not_asked_for_again(tmp_path):
    """The second try of a truncated rewrite meets a window without room for it: no later run asks once more."""

    def answer(asked):
        if asked.role != "easy":
            return "easy"
        if asked.body["max_tokens"] > 100:
            return error(400, "This model's maximum context length is 120 tokens. However, your request has 30 input "
                              "tokens and you requested 200 output tokens")  # fmt: skip
        return reply("half of it", "length")

    first, roles, _ = live(answer, tmp_path)
    assert first["reason"] == "rethinker_truncated" and roles[:2] == ["critic", "easy"]
    again, none, _ = live(lambda asked: pytest.fail("asked again"), tmp_path)
    assert again == first and none == []


def test_a_replayed_reply_keeps_the_servers_words(tmp_path):
    first, _, _ = live(lambda asked: error(400, "we do not speak of dogs", code="content_filter"), tmp_path)
    again, none, _ = live(lambda asked: pytest.fail("asked again"), tmp_path)
    assert first == again and none == [] and first["reason"] == "critic_filtered"
    assert "we do not speak of dogs" in again["steps"][0]["calls"][0]["detail"]


@pytest.mark.parametrize("text", ["medium \ud83d", "\ud83d"])
def test_half_a_surrogate_pair_hangs_nothing(tmp_path, text):
    async def walk(agents):
        async with asyncio.timeout(5):
            return await life_of(PROBLEM, agents)

    with Server(lambda asked: text) as server:
        trace = asyncio.run(with_agents(server.url, tmp_path, walk))
    assert trace["reason"] == "critic_invalid" and "\ufffd" in (tmp_path / "journal.jsonl").read_text()


# --- many problems ---


def test_a_bounded_number_of_problems_is_alive(tmp_path):
    """Problems are read as places become free, however long the input is."""
    read, done, alive = [], [], []

    def problems():
        for n in range(40):
            read.append(n)
            alive.append(len(read) - len(done))
            yield n, {**PROBLEM, "id": f"p{n}"}

    with Server(script(critic="medium", verifier="YES", incorrect=WRONG)) as server:
        walk = with_agents(
            server.url, tmp_path, lambda a: run_problems(problems(), a, 5, lambda n, trace: done.append(n))
        )
        asyncio.run(walk)
    assert sorted(done) == list(range(40)) and max(alive) == 5


def test_the_first_error_ends_the_run(tmp_path):
    def answer(asked):
        return error(401, "no such key") if asked.role == "verifier" else "medium"

    problems, done = [(n, {**PROBLEM, "id": f"p{n}"}) for n in range(40)], []
    with Server(answer) as server:
        walk = with_agents(
            server.url, tmp_path, lambda a: run_problems(problems, a, 5, lambda n, trace: done.append(n))
        )
        with pytest.raises(UserError, match="no such key"):
            asyncio.run(walk)
    # while a Critic's answer still comes in, a refused question may be given up as that question's own trouble
    assert len(done) < 5 and len(server.asked) <= 25
