"""Critic, Rethinker and Verifier (§3.2): prompt -> call -> parsed answer.

Every role sees the same three sections (problem, answer, chain); what differs is the prompt. Only a Verifier that
solves is not told the answer. A reply that cannot be used is asked for again, each time with a new seed; then the role
abstains: `Unanswered`. Nothing is ever guessed.
"""

import re
from collections import Counter
from dataclasses import dataclass, field

from agents.client import ANSWERED, Reply
from agents.guards import clean, is_code, solves
from agents.journal import call_key, call_seed
from agents.prompts import question

LEVELS = ("easy", "medium", "hard")
VERDICTS = ("YES", "NO")

ASKS = 3  # the first time and twice more
HOPELESS = ("filtered", "too_long", "refused", "transport")  # the same question would fare no better
EXTRA_VOTES = 2  # a tie of three is drawn to five


@dataclass
class Sampling:
    """§A.2: the same for all three agents."""

    temperature: float = 0.7
    """Sampling temperature (A.2)."""
    top_p: float | None = 0.9
    """Nucleus sampling (A.2); null leaves it out of the request."""
    top_k: int | None = 50
    """A.2. Not in OpenAI's own API: null leaves it out, for hosts that refuse it."""
    max_tokens: int = 16384
    """Longest answer, thought included. A truncated answer is asked for once more with twice as many."""
    max_tokens_key: str = "max_tokens"
    """Name of that field; max_completion_tokens for OpenAI's newer models."""
    send_seed: bool = True
    """Send a seed with every request: a deterministic server then repeats itself. Off for hosts that refuse it."""


@dataclass(frozen=True)
class Thresholds:
    """From scores to levels: terse chains are easy, verbose or difficult ones hard. The defaults are the middle of
    OmniThought's scales (arXiv 2505.10937), a beginning, not measured for any student."""

    rv_min: float = 3
    """Reasoning verbosity below this: easy, whatever the difficulty. Extended, it is rated again."""
    rv_max: float = 5
    """Reasoning verbosity above this: hard."""
    cd_max: float = 5
    """Cognitive difficulty above this: hard. What suits depends on the student: the smaller, the lower."""

    def level(self, rv, cd):
        if rv < self.rv_min:
            return "easy"
        return "hard" if rv > self.rv_max or cd > self.cd_max else "medium"


class Unanswered(Exception):
    """An agent gave no answer that can be used. reason: e.g. "critic_invalid", "rethinker_truncated"."""

    def __init__(self, agent, status):
        super().__init__(f"{agent}_{status}")
        self.reason = f"{agent}_{status}"


@dataclass
class Agents:
    """The agents of a run. endpoints: {"critic": Endpoint, "rethinker": …, "verifier": …}."""

    endpoints: dict
    journal: object
    prompts: dict
    sampling: Sampling
    prompt_role: str = "system"
    seed: int = 0
    critic_votes: int = 1
    verifier_votes: int = 1
    critic_mode: str = "levels"
    verifier_mode: str = "judge"
    thresholds: Thresholds = field(default_factory=Thresholds)

    async def critic(self, problem, chain, round, trail):
        """The level of a chain: "easy", "medium" or "hard" (§3.2.1). Scores that came with a problem are those of its
        original chain, so the rewrites of it are scored by a call."""
        step = {"step": "critic", "round": round, "label": None, "votes": {}, "calls": []}
        trail.append(step)

        async def read_scores(text):
            scores = parse_scores(text)
            if scores is None:
                return None
            step.setdefault("scores", []).append(scores)
            return self.thresholds.level(*scores)

        async def read_level(text):
            return parse_label(text, LEVELS)

        if self.critic_mode == "levels":
            return await self._vote(step, "critic", LEVELS, self.critic_votes, problem, chain, read_level)
        given = problem.get("rv"), problem.get("cd")
        if self.critic_mode == "given_rv_cd" and round == 0 and None not in given:
            step |= {"label": self.thresholds.level(*given), "scores": [given]}
            return step["label"]
        return await self._vote(step, "critic_rv_cd", LEVELS, self.critic_votes, problem, chain, read_scores)

    async def verifier(self, problem, chain, round, trail):
        """Whether the chain leads to the answer (§3.2.3): as judged with the answer in view (Table 13), or as found out
        by having it solved from the chain. A program without tests cannot be graded, so it is judged."""
        step = {"step": "verifier", "round": round, "label": None, "votes": {}, "calls": []}
        trail.append(step)

        async def read_verdict(text):
            return parse_label(text, VERDICTS)

        async def read_solution(text):
            return {True: "YES", False: "NO", None: None}[await solves(text, problem)]

        gradable = problem.get("tests") or not is_code(problem)
        if self.verifier_mode == "solve" and gradable:
            prompt, read = "verifier_solve", read_solution
        else:
            prompt, read = "verifier", read_verdict
        return await self._vote(step, prompt, VERDICTS, self.verifier_votes, problem, chain, read) == "YES"

    async def rethinker(self, mode, problem, chain, round, trail):
        """A rewritten chain (§3.2.2): mode "easy" extends, "hard" simplifies, "incorrect" corrupts (§3.3.2)."""
        step = {"step": "rethinker", "mode": mode, "round": round, "text": None, "calls": []}
        trail.append(step)
        prompt = f"rethinker_{mode}"

        async def read(text):
            return clean(text)

        step["text"], status = await self._ask("rethinker", prompt, problem, chain, round, 0, read, step["calls"])
        if step["text"] is None:
            raise Unanswered("rethinker", status)
        return step["text"]

    async def _vote(self, step, prompt, labels, votes, problem, chain, read):
        """The label that more than half of `votes` calls agree on; if they do not, the most frequent after two more."""
        agent, tally = step["step"], Counter()
        for vote in range(votes + (EXTRA_VOTES if votes > 1 else 0)):
            label, status = await self._ask(agent, prompt, problem, chain, step["round"], vote, read, step["calls"])
            tally.update([label] if label else [])
            step["votes"] = {name: tally[name] for name in labels if tally[name]}
            (first, most), (_, second) = (*tally.most_common(2), (None, 0), (None, 0))[:2]
            if vote + 1 in (votes, votes + EXTRA_VOTES) and most > votes // 2 and most > second:
                step["label"] = first
                return first
        raise Unanswered(agent, "unresolved" if votes > 1 and tally else status)

    async def _ask(self, agent, prompt, problem, chain, round, vote, read, calls):
        """One question, asked again while its reply is unusable. await read(text): the value, or None if unusable.

        Returns (value, status of the last reply); value None means that it was given up. `calls` gets a line a call.
        """
        max_tokens = self.sampling.max_tokens
        for attempt in range(ASKS):
            key, reply = await self._call(agent, prompt, problem, chain, round, vote, attempt, max_tokens)
            value = await read(reply.text) if reply.status == "ok" else None
            status = "invalid" if reply.status == "ok" and value is None else reply.status
            if status == "too_long" and max_tokens > self.sampling.max_tokens:
                status = "truncated"  # it fitted the first time: there is no twice the room
            calls.append({"key": key, "status": status, "prompt_tokens": reply.prompt_tokens,
                          "completion_tokens": reply.completion_tokens})  # fmt: skip
            if reply.detail:
                calls[-1]["detail"] = reply.detail
            if value is not None or status in HOPELESS:
                break
            if status == "truncated":
                if max_tokens > self.sampling.max_tokens:
                    break  # twice the room did not help: a model that goes round in circles
                max_tokens *= 2
        return value, status

    async def _call(self, agent, prompt, problem, chain, round, vote, attempt, max_tokens):
        """(key, Reply) from the journal, or from the endpoint by way of the journal.

        Neither the address nor max_tokens is part of the key: a moved server and a raised limit keep what is paid for.
        """
        endpoint, sampling = self.endpoints[agent], self.sampling
        answer = None if prompt == "verifier_solve" else problem["answer"]
        messages = question(self.prompts[prompt], problem["problem"], answer, chain, self.prompt_role)
        options = {"temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": sampling.top_k}
        options = {name: value for name, value in options.items() if value is not None}
        asked = {"model": endpoint.cfg.model, "messages": messages, "sampling": options, "seed": self.seed,
                 "extra_body": endpoint.cfg.extra_body}  # fmt: skip
        key = call_key(asked, problem["id"], prompt, round, vote, attempt)
        known = self.journal.get(key)
        if known and not (known["status"] == "truncated" and known["max_tokens"] < max_tokens):
            tokens = known["prompt_tokens"], known["completion_tokens"]
            return key, Reply(known["status"], known["text"], *tokens, detail=known["detail"])
        body = {"model": endpoint.cfg.model, "messages": messages, **options, sampling.max_tokens_key: max_tokens}
        if sampling.send_seed:
            body["seed"] = call_seed(key)
        reply = await endpoint.chat(body)
        await self.journal.append(
            {
                "key": key,
                "agent": agent,
                "problem_id": problem["id"],
                "prompt": prompt,
                "prompt_hash": call_key(self.prompts[prompt])[:16],
                "round": round,
                "vote": vote,
                "attempt": attempt,
                "model": endpoint.cfg.model,
                "endpoint": reply.endpoint,
                "sampling": options,
                "seed": call_seed(key),
                "max_tokens": max_tokens,
                "status": reply.status,
                "text": reply.text,
                "detail": reply.detail,
                "prompt_tokens": reply.prompt_tokens,
                "completion_tokens": reply.completion_tokens,
                "seconds": reply.seconds,
            }
        )
        assert reply.status in ANSWERED or reply.status in HOPELESS, reply.status
        return key, reply


EDGES = " \t*_`\"'.:!,;()[]{}"
# the word behind a tag, where it ends its clause: neither "medium-hard" nor "hard to say"
TAGGED = re.compile(
    r"""(?:verdict|rating|level|label|answer|output)[*_ ]*[:=]\W*?(\w+)(?=[*_`"')\]}]*(?:\s*[.,;:!(]|\s*$))"""
    r"""|\\boxed\{(?:\\text\{)?(\w+)\}""",
    re.IGNORECASE | re.MULTILINE,
)
ALONE = re.compile(r"^[^\w\n]*(\w+)[^\w\n]*$", re.MULTILINE)  # the only word of its line


def parse_label(text, labels):
    """The one of `labels` that a reply says, or None.

    Exactly (whatever its case and punctuation), or exactly in the last line, or once behind a tag ("Verdict: NO",
    "\\boxed{easy}") if neither the rest of that line nor a line of its own says another: a reply may list what it was
    to choose from. Never searched in prose: "not hard and not easy" says neither.
    """
    known = {label.lower(): label for label in labels}
    lines = [line for line in text.strip().splitlines() if line.strip(EDGES)]
    for candidate in (text, lines[-1] if lines else ""):
        label = known.get(candidate.strip(EDGES + "\n").lower())
        if label:
            return label
    exactly = set(labels) == set(VERDICTS)  # in capitals: "the answer is no" may be about the problem

    def named(words):
        return {known[word.lower()] for word in words if word.lower() in known and (word.isupper() or not exactly)}

    tagged = [match for match in TAGGED.finditer(text) if named([match[match.lastindex]])]
    lines = (text[match.start(match.lastindex) :].split("\n", 1)[0] for match in tagged)
    said = named([word for line in lines for word in re.findall(r"\w+", line)] + ALONE.findall(text))
    return said.pop() if tagged and len(said) == 1 else None


SCORE = re.compile(r"^\W*(RV|CD)\W*[:=]\W*(\d+)\W*$", re.MULTILINE)


def parse_scores(text):
    """(RV, CD) from the two lines "RV: 4" and "CD: 7" of a reply, or None: each once, from 0 to 9, nothing else on the
    line."""
    found = {name: int(number) for name, number in SCORE.findall(text)}
    if len(SCORE.findall(text)) != 2 or len(found) != 2 or max(found.values()) > 9:
        return None
    return found["RV"], found["CD"]
