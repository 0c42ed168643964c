"""Critic, Rethinker and Verifier (§3.2): prompt -> call -> parsed answer.

Every role sees the same three sections (problem, answer, chain); what differs is the prompt. Only a Verifier that
solves is not told the answer. A reply that cannot be used is asked for again, each time with a new seed; then the role
abstains. Nothing is ever guessed.
"""

import json
import re
from collections import Counter
from dataclasses import dataclass, fields, replace

from agents.client import TOKEN_KEYS, one_of
from agents.guards import clean, is_code, solves
from agents.journal import Journal, call_key, call_seed
from agents.keys import Config
from agents.measured import StudentCritic
from agents.pool import Pool
from agents.prompts import question
from agents.replies import ANSWERED, Reply

LEVELS = ("easy", "medium", "hard")
VERDICTS = ("YES", "NO")
LABELS = {"critic": LEVELS, "verifier": VERDICTS}  # by prompt: what is asked for in one word

ASKS = 3  # the first time and twice more
HOPELESS = ("filtered", "too_long", "refused", "transport")  # the same question would fare no better
EXTRA_VOTES = 2  # a tie of three is drawn to five


@dataclass(frozen=True)
class Task:
    """What is asked about which chain. prompt: a name in agents/prompts. round: of rewriting, 0 for the original."""

    agent: str
    prompt: str
    problem: dict
    chain: str
    round: int


@dataclass
class Agents:
    """The agents of a run. Each says what it did with a chain as a step of the trace (agents/crv.py): under "label" the
    level or the verdict, under "text" the rewritten chain; None if no reply could be used.

    pools: {"critic": Pool, "rethinker": …, "verifier": …}. prompts: {name: text}. student: measures every chain that is
    rated, and may be the one who rates.
    """

    pools: dict[str, Pool]
    journal: Journal
    prompts: dict[str, str]
    cfg: Config
    student: StudentCritic | None = None

    async def critic(self, problem: dict, chain: str, round: int) -> dict:
        """Rate a chain "easy", "medium" or "hard" (§3.2.1): as asked, or as measured on the student. Its fit, where it
        is measured, stands in the step."""
        fit = await self.student.fit(problem, chain) if self.student else None
        if fit and self.student.rates:
            label = self.student.levels.of(fit.nll, fit.rsr)
            return {"step": "critic", "round": round, "label": label, "votes": {}, "calls": [], "fit": vars(fit)}
        step = await self._vote(Task("critic", "critic", problem, chain, round), LEVELS)
        return step | ({"fit": vars(fit)} if fit else {})

    async def verifier(self, problem: dict, chain: str, round: int) -> dict:
        """Say "YES" or "NO" to whether the chain leads to the answer (§3.2.3): as judged with the answer in view (Table
        13), or as found out by having it solved from the chain. A program without tests cannot be graded, so it is
        judged."""
        gradable = problem.get("tests") or not is_code(problem)
        prompt = "verifier_solve" if self.cfg.verifier_mode == "solve" and gradable else "verifier"
        return await self._vote(Task("verifier", prompt, problem, chain, round), VERDICTS)

    async def rethinker(self, mode: str, problem: dict, chain: str, round: int) -> dict:
        """Rewrite a chain (§3.2.2): mode "easy" extends, "hard" simplifies, "incorrect" corrupts (§3.3.2)."""
        text, calls = await self._ask(Task("rethinker", f"rethinker_{mode}", problem, chain, round), 0)
        return {"step": "rethinker", "mode": mode, "round": round, "text": text, "calls": calls}

    async def _vote(self, task: Task, labels: tuple[str, ...]) -> dict:
        """The label that more than half of `votes` calls agree on; if they do not, the most frequent after two more."""
        votes, counts = self.cfg.votes, Counter()
        step = {"step": task.agent, "round": task.round, "label": None, "votes": {}, "calls": []}
        for vote in range(votes + (EXTRA_VOTES if votes > 1 else 0)):
            # one more vote; a reply that cannot be used abstains
            label, calls = await self._ask(task, vote)
            step["calls"] += calls
            counts.update([label] if label else [])
            step["votes"] = {name: counts[name] for name in labels if counts[name]}

            # decided, when all votes or all extra votes are in and one label leads
            (first, most), (_, second) = (*counts.most_common(2), (None, 0), (None, 0))[:2]
            if vote + 1 in (votes, votes + EXTRA_VOTES) and most > votes // 2 and most > second:
                step["label"] = first
                break
        return step

    async def _ask(self, task: Task, vote: int) -> tuple[str | None, list[dict]]:
        """One question, asked again while its reply cannot be used.

        Returns (value, one record per call); value None means that it was given up.
        """
        calls, limit = [], self.cfg.sampling.max_tokens
        max_tokens = limit
        for attempt in range(ASKS):
            # ask and read
            key, reply = await self._call(task, vote, attempt, max_tokens)
            value = await read_value(reply.text, task) if reply.status == "ok" else None
            status = "invalid" if reply.status == "ok" and value is None else reply.status
            calls.append({"key": key, "status": status, "prompt_tokens": reply.prompt_tokens,
                          "completion_tokens": reply.completion_tokens})  # fmt: skip
            calls[-1] |= {name: said for name in ("cached_tokens", "detail") if (said := getattr(reply, name))}

            # stop, or ask again; a truncated answer once, with twice the room
            if value is not None or status in HOPELESS:
                break
            if status == "truncated":
                if max_tokens > limit:
                    break  # that did not help: a model that goes round in circles
                max_tokens *= 2
        return value, calls

    async def _call(self, task: Task, vote: int, attempt: int, max_tokens: int) -> tuple[str, Reply]:
        """Returns (key, Reply) from the journal, or from a server by way of the journal.

        Neither the address nor max_tokens is part of the key: a moved server and a raised limit keep what is paid for.
        """
        # what is asked, and the name of that call
        pool, prompt, options = self.pools[task.agent], self.prompts[task.prompt], self.cfg.sampling.options()
        answer = None if task.prompt == "verifier_solve" else task.problem["answer"]
        messages = question(prompt, task.problem["problem"], answer, task.chain, self.cfg.prompt_role)
        asked = {"model": pool.cfg.model, "messages": messages, "sampling": options, "seed": self.cfg.seed,
                 "extra_body": pool.cfg.extra_body}  # fmt: skip
        key = call_key(asked, task.problem["id"], task.prompt, task.round, vote, attempt)

        # already paid for, unless it was cut short and there is more room now
        known = self.journal.get(key)
        if known and not (known["status"] == "truncated" and known["max_tokens"] < max_tokens):
            said = {field.name: known[field.name] for field in fields(Reply) if field.name in known}
            return key, Reply(**said)

        # ask, and have the reply on disk before it is used
        body = {"model": pool.cfg.model, "messages": messages, **options, TOKEN_KEYS[0]: max_tokens}
        if self.cfg.sampling.send_seed:
            body["seed"] = call_seed(key)
        if attempt == ASKS - 1 and task.prompt in LABELS:  # nothing but a label, where the server honours that
            body |= one_of(LABELS[task.prompt])
        reply = await pool.chat(body, key, task.prompt)
        # a second try with twice the room that does not fit stays what the first one was: there is no more room
        doubled = max_tokens > self.cfg.sampling.max_tokens
        status = "truncated" if reply.status == "too_long" and doubled else reply.status
        place = {"agent": task.agent, "problem_id": task.problem["id"], "prompt": task.prompt, "round": task.round,
                 "vote": vote, "attempt": attempt, "prompt_hash": call_key(prompt)[:16]}  # fmt: skip
        sent = {"model": pool.cfg.model, "sampling": options, "seed": call_seed(key), "max_tokens": max_tokens}
        said = {name: value for name, value in vars(reply).items() if name not in ("whole", "model") and value != ()}
        await self.journal.keep({"key": key} | place | sent | said | {"status": status})
        assert reply.status in ANSWERED or reply.status in HOPELESS, reply.status
        return key, replace(reply, status=status)


async def read_value(text: str, task: Task) -> str | None:
    """Returns the chain, the level or the verdict in a reply; None if it cannot be used. A solution is graded."""
    if task.agent == "rethinker":
        return clean(text)
    if task.prompt == "verifier_solve":
        return {True: "YES", False: "NO", None: None}[await solves(text, task.problem)]
    return parse_label(text, LEVELS if task.agent == "critic" else VERDICTS)


EDGES = " \t*_`\"'.:!,;()[]{}"
KEYS = ("verdict", "rating", "level", "label", "answer", "output")  # behind which a label stands, in prose and in JSON
IN_JSON = {*KEYS, "difficulty", "category", "class", "classification", "assessment", "evaluation", "judgment",
           "judgement", "decision", "conclusion", "result", "response", "correct"}  # fmt: skip
# the word behind a tag, where it ends its clause: neither "medium-hard" nor "hard to say"
TAGGED = re.compile(
    rf"""(?:{"|".join(KEYS)})[*_ ]*[:=]\W*?(\w+)(?=[*_`"')\]}}]*(?:\s*[.,;:!(]|\s*$))"""
    r"""|\\boxed\{(?:\\text\{)?(\w+)\}""",
    re.IGNORECASE | re.MULTILINE,
)
ALONE = re.compile(r"[\W_]*([^\W_]+)[\W_]*")  # the only word of a line
DENIED = re.compile(r"(?:\b(?:not|never|neither|nor)|n't)\W*\Z", re.IGNORECASE)  # before the last line
OBJECT = re.compile(r"""\{\s*["'][^{}]*\}?""")  # the beginning of a JSON object, and the whole of a broken one
JSON = json.JSONDecoder(object_pairs_hook=list)  # one key may stand there twice


def parse_label(text: str, labels: tuple[str, ...]) -> str | None:
    """Returns the one of `labels` that a reply says, or None.

    Exactly in the last line (whatever its case and punctuation), or behind a tag ("Verdict: NO", "\\boxed{easy}",
    {"verdict": "easy"}) if neither the rest of that line nor a line of its own says another: a reply may list what it
    was to choose from. Never searched in prose: "not hard and not easy" says neither. A reply that contradicts itself
    says nothing, nor does one with a label under a key that means something else, or in a broken object.
    """
    known = {label.lower(): label for label in labels}
    exactly = set(labels) == set(VERDICTS)  # in capitals: "the answer is no" may be about the problem

    def named(words):
        return {known[word.lower()] for word in words if word.lower() in known and (word.isupper() or not exactly)}

    # in JSON: then the prose around it may name no other
    pairs, prose = split_objects(text)
    keyed = [(key, value.lower()) for key, value in pairs if str(value).lower() in known]
    if not all(names_label(key) for key, _ in keyed):
        return None
    said = {known[value] for _, value in keyed} | (named(re.findall(r"\w+", prose)) if keyed else set())

    # behind a tag, unless another label is named there or alone on a line
    tagged = [match for match in TAGGED.finditer(prose) if named([match[match.lastindex]])]
    lines = (prose[match.start(match.lastindex) :].split("\n", 1)[0] for match in tagged)
    behind = [named(re.findall(r"\w+", line)) for line in lines]
    written = [line for line in prose.splitlines() if line.strip(EDGES)]
    alone = [match[1] for line in written if (match := ALONE.fullmatch(line))]

    # in the last line, if no other line says another: a tag's line that names several is the list of what to choose
    *before, last = written or [""]
    label = known.get(last.lstrip(EDGES.replace("!", "")).rstrip(EDGES).lower())
    if label and len({word.lower() for word in alone} & known.keys()) == 1:
        said = said.union({label}, *(line for line in behind if len(line) == 1))
        return label if len(said) == 1 and not (before and DENIED.search(before[-1])) else None
    if tagged:
        said = said.union(named(alone), *behind)
    return said.pop() if len(said) == 1 else None


def names_label(key: str) -> bool:
    """Tells whether a label stands under a key of a JSON object: by its last word (final_answer, difficultyLevel), if
    the first one does not deny it."""
    words = [word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", key)]
    return bool(words) and words[-1] in IN_JSON and words[0] not in ("not", "no", "non", "never")


def split_objects(text: str) -> tuple[list[tuple[str, object]], str]:
    """Returns (the pairs of key and value of all JSON objects in a text, what stands around them). Of an object in
    another only its own key is told; what is a broken one gives its words, under no key."""
    pairs, prose, at = [], "", 0
    for begin in OBJECT.finditer(text):
        if begin.start() >= at:
            prose += text[at : begin.start()]
            try:
                found, at = JSON.raw_decode(text, begin.start())
            except (ValueError, RecursionError):  # broken, or a model that went round in circles
                found, at = [("", word) for word in re.findall(r"\w+", begin[0])], begin.end()
            pairs += found
    return pairs, prose + text[at:]
