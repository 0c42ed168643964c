"""Rows of public datasets -> records: one generator for each format of rows.

A format is recognised by its columns (`format_of`), never by a dataset's name. Its generator takes one row and yields
records; for what cannot be used it yields the reason, a string, or raises LeftOut for the whole row.

    chosen, rejected               pairs: EasyDistill's CogPO rows (with beta) and other preference data; replies or
                                   whole conversations, the prompt in a column or where both sides begin
    deepseek_reasoning, …          OpenThoughts-114k (`metadata`): with y, and tests for code
    generations or reasoning …     lists: OpenR1-Math-220k, OmniThought; each chain that was not judged to be wrong
    problem, answer, reasoning     records of this project, or any dataset through `columns`
    messages or conversations      Bespoke-Stratos-17k, Sky-T1-data-17k, OpenThoughts3, Mixture-of-Thoughts
    instruction or input …, output Alpaca, Nemotron's post-training data, EasyDistill 2

What belongs to a question comes with it: a system turn or column, `input`, `history`. A row with more of it than its
format has a place for (CONTEXT) is left out.
"""

import hashlib
import itertools
import json
import re
from collections.abc import Callable, Iterator

from data.records import GAPS
from grading.answers import extract_boxed
from grading.extraction import final_answer
from grading.programs import check_tests

MATH_PREFIX = "Return your final response within \\boxed{}."
CODE_PREFIX = "Generate an executable Python function"
TAGGED = re.compile(
    r"<\|begin_of_thought\|>(?P<reasoning>.*?)<\|end_of_thought\|>\s*"
    r"<\|begin_of_solution\|>(?P<solution>.*?)<\|end_of_solution\|>"
    r"|\A\s*(?:<think>)?(?P<thought>.*)</think>(?P<rest>.*)",
    re.DOTALL,
)
OPENING = re.compile(r"<think>|<\|begin_of_thought\|>")
# system prompts that only lay out the reply: Bespoke-Stratos' and Sky-T1's, and switches
LAYOUT = re.compile(r"<\|begin_of_thought\|>|\A\s*(detailed thinking (on|off)|/(no_)?think)\s*\Z")
LONGEST_ANSWER = 200  # characters of an answer column that is the answer itself
SHORT_SOLUTION = 40  # characters of a solution that needs no box

# what datasets call their columns, the first that has a value, and the roles of turns
QUESTIONS = ("problem", "question", "instruction", "prompt", "query")
REPLIES = ("output", "response", "completion", "solution")
THOUGHTS = ("reasoning_content", "thinking", "thought", "reasoning")
CHAINS = ("generations", "reasoning", "responses")
TURNS = ("messages", "conversations", "conversation")
ROLES = {"system": "system", "user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant"}
# columns that change what is asked
SYSTEM = ("system", "system_prompt")
CONTEXT = (*SYSTEM, "input", "context", "history", "tools", "functions", "choices", "options", "starter_code")
CONTEXT += ("passage", "document", "image", "images")

NO_BOX = "without an answer: no box in the solution"
NO_TAGS = "without a tagged thought and solution"
ODD = "with an unexpected type"


class LeftOut(Exception):
    """Why a row cannot be used."""


class Note(str):
    """What was changed in a record that is kept."""


class Row(dict):
    """A row that knows which of its columns a format has looked at."""

    def __init__(self, columns: dict):
        super().__init__(columns)
        self.seen = set()

    def get(self, name: str) -> object:
        self.seen.add(name)
        return super().get(name)

    def unread(self) -> set[str]:
        """Name the columns with a value that nobody has looked at."""
        return {name for name in self.keys() - self.seen if self[name] not in (None, "", [], {}, "[]", "{}")}


Format = Callable[[Row], Iterator[dict | str]]


def format_of(row: Row, sft: bool = False) -> Format | None:
    """Find the generator for rows with these columns; None if no format fits. sft: whole conversations are wanted."""
    asks, replies, talks = (not row.keys().isdisjoint(n) for n in ((*QUESTIONS, "input"), REPLIES, TURNS))
    if {"chosen", "rejected"} <= row.keys():
        return preferences
    if not sft and {"problem", "deepseek_reasoning", "deepseek_solution"} <= row.keys():
        return metadata
    if not sft and any(isinstance(row[name], list) for name in CHAINS if name in row):
        return several_chains
    if not sft and {"problem", "answer", "reasoning"} <= row.keys():
        return columns
    return (whole_conversation if sft else conversation) if talks or (asks and replies) else None


def read_row(row: Row, read: Format) -> list[dict | str]:
    """Return what a row holds: records, and a reason for each that cannot be used."""
    try:
        found = list(read(row))
    except LeftOut as reason:
        return [str(reason)]
    lost = next((name for name in CONTEXT if name in row.unread()), None)
    return [f"with {lost}, for which a record has no place (ignore='[{lost}]' drops it)"] if lost else found


# --- formats ---


def conversation(row: Row) -> Iterator[dict | str]:
    """Read one exchange, from turns or columns: the reply is a thought and a solution in tags, or a chain without."""
    *before, reply = _messages(row)
    yield from _chain(row, before, reply["content"])


def whole_conversation(row: Row) -> Iterator[dict | str]:
    """Read all exchanges as an sft record."""
    messages = _messages(row)
    yield {"id": _hash(json.dumps(messages)), "messages": messages}


def metadata(row: Row) -> Iterator[dict | str]:
    """Read OpenThoughts-114k's metadata configuration."""
    # y of code is the program itself; else the ground truth's box, the solution's box, or the ground truth as it is
    names = ("problem", "deepseek_reasoning", "deepseek_solution", "domain", "ground_truth_solution", "starter_code")
    problem, reasoning, solution, domain, truth, starter = (_first(row, name) for name in names)
    answer = solution if domain == "code" else extract_boxed(truth) or extract_boxed(solution) or truth
    if not answer or not reasoning:
        raise LeftOut("without an answer or reasoning")
    problem = "\n\n".join(filter(None, [problem, starter]))
    yield from _with_tests(problem_record(problem, answer, reasoning, solution, domain), row.get("test_cases"))


def several_chains(row: Row) -> Iterator[dict | str]:
    """Read a list of chains, texts or objects: a problem record for each, but those judged to be wrong."""
    chains = next(value for name in CHAINS if isinstance(value := row.get(name), list))
    judges = [row.get(name) for name in ("correctness_math_verify", "correctness_llama")]
    judges = [judge for judge in judges if judge]
    if not chains:
        raise LeftOut("without a chain")
    if not all(isinstance(judge, list) and len(judge) == len(chains) for judge in judges):
        raise LeftOut(ODD)
    before = _asked(row)
    for chain, *verdicts in zip(chains, *judges, strict=True):
        if isinstance(chain, dict):
            verdicts = [chain.get("logical_correctness")]
            chain = _first(chain, "full_response", "response", "output", "reasoning")
        if not isinstance(chain, str):
            yield ODD
        elif not any(verdicts) and any(verdict is not None for verdict in verdicts):
            yield "a chain judged to be wrong"  # by each who judged it
        else:
            yield from _chain(row, before, chain)


def columns(row: Row) -> Iterator[dict | str]:
    """Read problem, answer, reasoning, and what else a problem record may have.

    Reasoning in tags is taken out of them. An answer with a box, or too long to be one, is a solution: y is its last
    box, or that of the solution column.
    """
    text, given, domain = _first(row, "reasoning"), _given(row), _first(row, "domain") or "math"
    reasoning, solution = tagged_parts(text)
    solution, answer = _first(row, "solution") or solution, given
    if domain != "code" and given != (answer := _answer(given, solution)):
        solution = solution or given
    record = problem_record(
        _question(_asked(row)), answer or "", text if reasoning is None else reasoning, solution, domain
    )
    yield from _with_tests(record, row.get("tests")) if answer is not None else [NO_BOX]


def preferences(
    row: Row, gap: str | None = None, betas: tuple[float, float, float] = (0.1, 0.2, 0.5)
) -> Iterator[dict | str]:
    """Read two replies, or two conversations that differ in the last reply, as a pair record.

    gap: of every pair; None: told by the row's `beta`, which is one of `betas`, those of small, medium and large gaps.
    """
    if gap is None:
        beta = row.get("beta")
        if not isinstance(beta, int | float | None):
            raise LeftOut(ODD)
        near = [name for name, value in zip(GAPS, betas, strict=True) if beta is not None and abs(beta - value) < 1e-6]
        if not near:
            raise LeftOut(f"with a beta other than {', '.join(map(str, betas))} (set betas or gap)")
        gap = near[0]

    # the prompt is in columns, or in turns, or what both sides begin with
    sides = [_turns(row.get(name), "assistant") for name in ("chosen", "rejected")]
    if not all(sides):
        raise LeftOut("with an empty side")
    given = _asked(row)
    if not any(message["role"] == "user" for message in given + sides[0]):
        given = _with_system(row, _turns(next((row.get(name) for name in TURNS if name in row), []), "user"))
        if not given:
            raise LeftOut("without a prompt")
    chosen, rejected = (_alternating(_continued(row, given, side)) for side in sides)
    if chosen[:-1] != rejected[:-1]:
        raise LeftOut("whose sides part before their last reply")
    prompt, chosen, rejected = chosen[:-1], chosen[-1:], rejected[-1:]
    problem_id = _hash(json.dumps(prompt))
    yield {
        "id": f"{problem_id}/{gap}/{_hash(json.dumps([chosen, rejected]))[:8]}",
        "problem_id": problem_id,
        "prompt": prompt,
        "chosen": chosen,
        "rejected": rejected,
        "gap": gap,
        "origin": "imported",
    }


# --- what was asked and what was said ---


def _messages(row):
    """Return the conversation of a row: its turns, or the question and the reply of its columns."""
    turns = next((row.get(name) for name in TURNS if name in row), None)
    if turns is not None:
        return _alternating(_with_system(row, _turns(turns)))
    said = _turns(next((row.get(name) for name in REPLIES if row.get(name)), ""), "assistant")
    return _alternating(_asked(row) + [turn | {"content": _with_thought(row, turn["content"])} for turn in said])


def _asked(row):
    """Return the messages before a reply, from columns: system prompt, history, the question and its input."""
    question = next((row.get(name) for name in QUESTIONS if row.get(name)), None)
    parts = [part for part in (question, row.get("input"), row.get("context")) if str(part or "").strip()]
    if len(parts) > 1 and not all(isinstance(part, str) for part in parts):
        raise LeftOut(ODD)
    messages = _turns(parts[0] if len(parts) == 1 else "\n".join(parts), "user") if parts else []
    history = row.get("history") or []
    if not all(isinstance(pair, list) and len(pair) == 2 for pair in history):
        raise LeftOut(ODD)
    past = [turn for said, reply in history for turn in _turns(said, "user") + _turns(reply, "assistant")]
    return _with_system(row, past + messages)


def _with_system(row, messages):
    """Put the system prompt of a column in front of messages."""
    own = [*itertools.takewhile(lambda message: message["role"] == "system", messages)]
    texts = {_first(row, name) for name in SYSTEM} | {message["content"] for message in own}
    if len(texts - {""}) > 1:
        raise LeftOut("with two system prompts")
    return [{"role": "system", "content": text} for text in texts - {""}] + messages[len(own) :]


def _turns(value, role=None):
    """Return messages of turns, of one turn, or of a text by `role`; a thought beside the content goes into tags."""
    if isinstance(value, str) and role:
        return [{"role": role, "content": value}]
    if isinstance(value, dict) and all(isinstance(v, list) for v in value.values()):
        if len({len(column) for column in value.values()}) > 1:
            raise LeftOut(ODD)
        value = [dict(zip(value, turn, strict=True)) for turn in zip(*value.values(), strict=True)]
    messages = []
    for turn in value if isinstance(value, list) else [value]:
        if not isinstance(turn, dict):
            raise LeftOut(ODD)
        role, content = turn.get("role", turn.get("from")), turn.get("content", turn.get("value"))
        if isinstance(content, list) and all(isinstance(part, dict) for part in content):
            if not all(isinstance(part.get("text"), str) for part in content):
                raise LeftOut("with a part of a message that is no text")
            content = "".join(part["text"] for part in content)
        if turn.get("tool_calls") or (isinstance(role, str) and role.lower() not in ROLES):
            raise LeftOut(f"with a tool call or a turn of role {role}")
        if not isinstance(role, str) or not isinstance(content, str):
            raise LeftOut(ODD)
        messages.append({"role": ROLES[role.lower()], "content": _with_thought(turn, content)})
        messages[-1] |= {} if turn.get("weight") is None else {"weight": turn["weight"]}
    return messages


def _with_thought(place, reply):
    """Put the thought of a column or key in front of a reply that has none."""
    thought = _first(place, *THOUGHTS).strip()
    if thought in ("", "on", "off") or thought in reply or OPENING.search(reply):
        return reply
    return f"<think>\n{thought}\n</think>\n\n{reply}"


def _alternating(messages):
    """Check that a user and the assistant speak in turn and the assistant ends: every reply has its question."""
    roles = [message["role"] for message in messages if message is not messages[0] or message["role"] != "system"]
    if not roles or roles != ["user", "assistant"] * (len(roles) // 2):
        raise LeftOut("whose turns do not alternate between user and assistant")
    return messages


def _continued(row, given, side):
    """Return the conversation of one side: behind `given`, unless it repeats that from the start."""
    if side[0]["role"] == "assistant":
        return given + side
    asked = [message["content"].strip() for message in given if message["role"] != "system"]
    whole = _with_system(row, given[: len(given) - len(asked)] + side)
    said = [message["content"].strip() for message in whole if message["role"] != "system"]
    if said[: len(asked)] != asked:
        raise LeftOut("whose sides begin with another prompt than their own")
    return whole


def _question(before):
    """Return the one question before a chain as a text, behind its system prompt."""
    if [message["role"] for message in before if message["role"] != "system"] != ["user"]:
        raise LeftOut("with several exchanges or none (a problem is one; records=sft takes all)")
    return "\n\n".join(message["content"] for message in before)


def _chain(row, before, reply):
    """Yield the problem record of a question and a reply, or why there is none."""
    if before and before[0]["role"] == "system" and LAYOUT.search(before[0]["content"]):
        before = before[1:]
        yield Note("system prompts that only lay out the reply (dropped)")
    question, domain, given = _question(before).removeprefix(MATH_PREFIX), _first(row, "domain"), _given(row)
    reasoning, solution = tagged_parts(reply)
    code = question.startswith(CODE_PREFIX) or (extract_boxed(solution) is None and "```" in solution)
    if TAGGED.sub("", reply, count=1).strip() and reasoning is not None:
        yield Note("texts outside of the tags (dropped)")
    if OPENING.search(reply if reasoning is None else reasoning + solution):
        yield "with a thought that does not end, or with several"
    elif reasoning is None:
        answer = _answer(given, reply)
        yield problem_record(question, answer, reply, "", domain or "math") if answer and domain != "code" else NO_TAGS
    elif domain == "code" or (code and not domain):
        yield problem_record(question, solution, reasoning, solution, "code")
    else:
        answer = _answer(given, solution) or (final_answer(solution) if len(solution) <= SHORT_SOLUTION else None)
        yield problem_record(question, answer, reasoning, solution, domain or "math") if answer else NO_BOX


def _given(row):
    """Return the answer column as a text, "" if there is none."""
    value = next((row.get(name) for name in ("answer", "expected_answer") if name in row), None)
    if not isinstance(value, str | int | float | None):
        raise LeftOut(ODD)
    return "" if value is None else str(value)


def _answer(given, solution):
    """Return y: the given answer, unless it has a box or is too long to be one; else its box, or the solution's."""
    given = given.rpartition("####")[2]  # GSM8K's solutions end in #### y
    if given.strip() and len(given) <= LONGEST_ANSWER and extract_boxed(given) is None:
        return given
    return extract_boxed(given) or extract_boxed(solution)


def _with_tests(record, value):
    """Yield the record, with tests {"inputs": […], "outputs": […], "fn_name"?} given as a dict or its JSON if
    build_crv.py would take them; if not, a note, and the record without."""
    if value:
        try:
            tests = json.loads(value) if isinstance(value, str) else value
            check_tests(tests)
        except ValueError:  # no JSON, or a UserError
            yield Note("tests that cannot be run (their problems are kept)")
        else:
            record = record | {"tests": {key: value for key, value in tests.items() if value is not None}}
    yield record


def tagged_parts(text: str) -> tuple[str | None, str]:
    """Split a text in Bespoke-Stratos' or <think> tags into (reasoning, solution); (None, "") if it has neither."""
    found = TAGGED.search(text)
    if found is None:
        return None, ""
    return (found["reasoning"] or found["thought"] or "").strip(), (found["solution"] or found["rest"] or "").strip()


def problem_record(problem: str, answer: str, reasoning: str, solution: str, domain: str) -> dict:
    """Make a problem record (data/records.py) whose id is a hash of problem and reasoning."""
    problem, reasoning = problem.strip(), reasoning.strip()
    return {
        "id": _hash(f"{problem}\0{reasoning}"),
        "problem": problem,
        "answer": answer.strip(),
        "reasoning": reasoning,
        "solution": solution.strip(),
        "domain": domain,
    }


def _hash(text):
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _first(place, *names):
    """Return the first of these columns or keys that holds a text, or ""; null is missing."""
    for name in names:
        value = place.get(name)
        if not isinstance(value, str | None):
            raise LeftOut(ODD)
        if value and value.strip():
            return value
    return ""
