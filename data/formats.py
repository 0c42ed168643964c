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
format has a place for (`context` in data/names.yaml) is left out.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterator

from data.messages import NAMES
from data.records import GAPS
from data.turns import ODD, OPENING, LeftOut, Row, asked, conversation_of, first_text, sides_of
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
# system prompts that only lay out the reply: Bespoke-Stratos' and Sky-T1's, and switches
LAYOUT = re.compile(r"<\|begin_of_thought\|>|\A\s*(detailed thinking (on|off)|/(no_)?think)\s*\Z")
LONGEST_ANSWER = 200  # characters of an answer column that is the answer itself
SHORT_SOLUTION = 40  # characters of a solution that needs no box

NO_BOX = "without an answer: no box in the solution"
NO_TAGS = "without a tagged thought and solution"


class Note(str):
    """What was changed in a record that is kept."""


Format = Callable[[Row], Iterator[dict | str]]


def format_of(row: Row, sft: bool = False) -> Format | None:
    """Find the generator for rows with these columns; None if no format fits. sft: whole conversations are wanted."""
    asks, replies, talks = (not row.keys().isdisjoint(NAMES[kind]) for kind in ("question", "reply", "turns"))
    asks = asks or "input" in row
    if not sft and {"chosen", "rejected"} <= row.keys():
        return preferences
    if not sft and {"problem", "deepseek_reasoning", "deepseek_solution"} <= row.keys():
        return metadata
    if not sft and any(isinstance(row[name], list) for name in NAMES["chains"] if name in row):
        return several_chains
    if not sft and asks and {"answer", "reasoning"} <= row.keys():
        return columns
    return (whole_conversation if sft else conversation) if talks or (asks and replies) else None


def read_row(row: Row, read: Format) -> list[dict | str]:
    """Return what a row holds: records, and a reason for each that cannot be used."""
    try:
        found = list(read(row))
    except LeftOut as reason:
        return [str(reason)]
    lost = next((name for name in NAMES["context"] if name in row.unread()), None)
    return [f"with {lost}, for which a record has no place (ignore='[{lost}]' drops it)"] if lost else found


# --- formats ---


def conversation(row: Row) -> Iterator[dict | str]:
    """Read one exchange, from turns or columns: the reply is a thought and a solution in tags, or a chain without."""
    *before, reply = conversation_of(row)
    yield from _chain(row, before, reply["content"])


def whole_conversation(row: Row) -> Iterator[dict | str]:
    """Read all exchanges as an sft record."""
    messages = conversation_of(row)
    yield {"id": _hash(json.dumps(messages)), "messages": messages}


def metadata(row: Row) -> Iterator[dict | str]:
    """Read OpenThoughts-114k's metadata configuration."""
    # y of code is the program itself; else the ground truth's box, the solution's box, or the ground truth as it is
    names = ("problem", "deepseek_reasoning", "deepseek_solution", "domain", "ground_truth_solution", "starter_code")
    problem, reasoning, solution, domain, truth, starter = (first_text(row, name) for name in names)
    answer = solution if domain == "code" else extract_boxed(truth) or extract_boxed(solution) or truth
    if not answer or not reasoning:
        raise LeftOut("without an answer or reasoning")
    problem = "\n\n".join(filter(None, [problem, starter]))
    yield from _with_tests(problem_record(problem, answer, reasoning, solution, domain), row.get("test_cases"))


def several_chains(row: Row) -> Iterator[dict | str]:
    """Read a list of chains, texts or objects: a problem record for each, but those judged to be wrong."""
    # the chains, and what each judge said of each
    chains = next(value for name in NAMES["chains"] if isinstance(value := row.get(name), list))
    judges = [row.get(name) for name in ("correctness_math_verify", "correctness_llama")]
    judges = [judge for judge in judges if judge]
    if not chains:
        raise LeftOut("without a chain")
    if not all(isinstance(judge, list) and len(judge) == len(chains) for judge in judges):
        raise LeftOut(ODD)
    # a chain is wrong if somebody judged it and nobody found it right
    before = asked(row)
    for chain, *verdicts in zip(chains, *judges, strict=True):
        if isinstance(chain, dict):
            verdicts = [chain.get("logical_correctness")]
            chain = first_text(chain, "full_response", "response", "output", "reasoning")
        if not isinstance(chain, str) or not all(isinstance(verdict, int | float | None) for verdict in verdicts):
            yield ODD
        elif not any(verdicts) and any(verdict is not None for verdict in verdicts):
            yield "a chain judged to be wrong"
        else:
            yield from _chain(row, before, chain)


def columns(row: Row) -> Iterator[dict | str]:
    """Read problem, answer, reasoning, and what else a problem record may have.

    Reasoning in tags is taken out of them. An answer with a box, or too long to be one, is a solution: y is its last
    box, or that of the solution column.
    """
    text, given, domain = first_text(row, "reasoning"), _given(row), first_text(row, "domain") or "math"
    reasoning, solution = tagged_parts(text)
    solution, answer = first_text(row, "solution") or solution, given
    if domain != "code" and given != (answer := _answer(given, solution)):
        solution = solution or given
    record = problem_record(
        _question(asked(row)), answer or "", text if reasoning is None else reasoning, solution, domain
    )
    yield from _with_tests(record, row.get("tests")) if answer is not None else [NO_BOX]


def preferences(
    row: Row, gap: str | None = None, betas: tuple[float, float, float] = (0.1, 0.2, 0.5)
) -> Iterator[dict | str]:
    """Read two replies, or two conversations that differ in the last reply, as a pair record.

    gap: of every pair; None: told by the row's `beta`, which is one of `betas`, those of small, medium and large gaps.
    """
    # the gap, where the row tells it
    if gap is None:
        beta = row.get("beta")
        if not isinstance(beta, int | float | None):
            raise LeftOut(f"{ODD} of beta")
        near = [name for name, value in zip(GAPS, betas, strict=True) if beta is not None and abs(beta - value) < 1e-6]
        if not near:
            raise LeftOut(f"with no beta of {', '.join(map(str, betas))} (set betas or gap)")
        gap = near[0]

    prompt, chosen, rejected = sides_of(row)
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


# --- records ---


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
    question, domain, given = _question(before).removeprefix(MATH_PREFIX), first_text(row, "domain"), _given(row)
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
    value = next((row.get(name) for name in ("answer", "expected_answer", "final_answer") if name in row), None)
    if not isinstance(value, str | int | float | None):
        raise LeftOut(f"{ODD} of the answer")
    return "" if value is None or value != value else str(value)  # NaN: a missing number in Parquet


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
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:16]
