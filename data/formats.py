"""Rows of public datasets -> records: one generator for each format of rows.

A format is recognised by its columns (`format_of`), never by a dataset's name or the text of a system prompt. Its
generator takes one row and yields records; for what cannot be used it yields the reason, a string.

    conversations                     Bespoke-Stratos-17k, Sky-T1-data-17k, OpenThoughts-114k (`default`): two turns,
                                      reasoning and solution in tags; no answer column
    problem, deepseek_reasoning, …    OpenThoughts-114k (`metadata`): with y, and tests for code
    question, reasoning (a list)      OmniThought: several chains a problem
    prompt, chosen, rejected          EasyDistill's CogPO rows (with beta) and other preference data: pair records
    problem, answer, reasoning        records of this project, or any dataset through `columns`
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterator

from data.records import GAPS
from grading.answers import extract_boxed
from grading.programs import check_tests

MATH_PREFIX = "Return your final response within \\boxed{}."
CODE_PREFIX = "Generate an executable Python function"
TAGGED = re.compile(
    r"<\|begin_of_thought\|>(?P<reasoning>.*?)<\|end_of_thought\|>\s*"
    r"<\|begin_of_solution\|>(?P<solution>.*?)<\|end_of_solution\|>"
    r"|\A\s*(?:<think>)?(?P<thought>.*)</think>(?P<rest>.*)",
    re.DOTALL,
)
LONGEST_ANSWER = 200  # characters of an answer column that is the answer itself

NO_BOX = "without an answer: no box in the solution"
NO_TAGS = "without a tagged thought and solution"
ODD = "with an unexpected type"

Format = Callable[[dict], Iterator[dict | str]]


def format_of(row: dict) -> Format | None:
    """Find the generator for rows with these columns; None if no format fits."""
    for columns_needed, read in FORMATS:
        if all(any(name in row for name in names.split("|")) for names in columns_needed):
            return read
    return None


def conversations(row: dict) -> Iterator[dict | str]:
    """Read {"conversations": [{"from", "value"}, …]} or {"role", "content"}; roles user/human and assistant/gpt."""
    turns = row["conversations"]
    if not isinstance(turns, list) or not all(_typed(turn, "from role value content") for turn in turns):
        yield ODD
        return
    turns = {turn.get("from", turn.get("role")): turn.get("value", turn.get("content")) for turn in turns}
    user = turns.get("user", turns.get("human"))
    reasoning, solution = tagged_parts(turns.get("assistant", turns.get("gpt")) or "")
    if user is None or reasoning is None:
        yield NO_TAGS
    elif user.startswith(CODE_PREFIX) or (extract_boxed(solution) is None and "```" in solution):
        yield problem_record(user, solution, reasoning, solution, "code")
    elif extract_boxed(solution) is None:
        yield NO_BOX
    else:
        user = user.removeprefix(MATH_PREFIX)
        yield problem_record(user, extract_boxed(solution), reasoning, solution, "math")


def metadata(row: dict) -> Iterator[dict | str]:
    """Read OpenThoughts-114k's metadata configuration."""
    if not _typed(row, "problem deepseek_reasoning deepseek_solution domain ground_truth_solution starter_code"):
        yield ODD
        return

    # y of code is the program itself; else the ground truth's box, the solution's box, or the ground truth as it is
    reasoning, solution = row["deepseek_reasoning"] or "", row["deepseek_solution"] or ""
    domain, truth = row["domain"], row["ground_truth_solution"] or ""
    answer = solution if domain == "code" else extract_boxed(truth) or extract_boxed(solution) or truth
    if not answer or not reasoning:
        yield "without an answer or reasoning"
        return
    starter = row.get("starter_code") if domain == "code" else None
    record = problem_record("\n\n".join(filter(None, [row["problem"], starter])), answer, reasoning, solution, domain)
    yield from _with_tests(record, row.get("test_cases"))


def _with_tests(record, value):
    """Yield the record, with tests {"inputs": […], "outputs": […], "fn_name"?} given as a dict or its JSON if
    build_crv.py would take them; if not, the reason, and the record without."""
    if value:
        try:
            tests = json.loads(value) if isinstance(value, str) else value
            check_tests(tests)
        except ValueError:  # no JSON, or a UserError
            yield "tests that cannot be run (their problems are kept)"
        else:
            record = record | {"tests": {key: value for key, value in tests.items() if value is not None}}
    yield record


def several_chains(row: dict) -> Iterator[dict | str]:
    """Read OmniThought: a record for each chain in the list `reasoning` or `responses`, but those judged wrong."""
    chains = row.get("reasoning") if isinstance(row.get("reasoning"), list) else row.get("responses")
    if not isinstance(chains, list):
        yield "without a list of chains (name other columns with columns=)"
        return
    if not _typed(row, "domain") or not all(isinstance(chain, dict) for chain in chains):
        yield ODD
        return
    question = _first(row, "question", "problem", "instruction", "prompt")
    for chain in chains:
        text = _first(chain, "full_response", "response", "output", "reasoning") or ""
        reasoning, solution = tagged_parts(text)
        reasoning, solution = (text, "") if reasoning is None else (reasoning, solution)
        answer = _first(row, "answer", "expected_answer") or extract_boxed(solution or text)
        if chain.get("logical_correctness") == 0:
            yield "a chain judged to be wrong"
        elif not question or answer is None:
            yield NO_BOX
        else:
            yield problem_record(question, answer, reasoning, solution, row.get("domain") or "math")


def columns(row: dict) -> Iterator[dict | str]:
    """Read problem, answer, reasoning, and what else a problem record may have.

    Reasoning in tags is taken out of them. An answer with a box, or too long to be one, is a solution: y is its last
    box, or that of the solution column.
    """
    if not _typed(row, "reasoning solution domain") or not _typed(row, "problem answer", str | int | float):
        yield ODD
        return
    problem, answer = str(row["problem"] or ""), str(row["answer"] if row["answer"] is not None else "")
    reasoning, solution = tagged_parts(row["reasoning"] or "")
    reasoning, solution = (row["reasoning"] or "", "") if reasoning is None else (reasoning, solution)
    solution, domain = row.get("solution") or solution, row.get("domain") or "math"
    if domain != "code" and (extract_boxed(answer) or len(answer) > LONGEST_ANSWER):
        solution, answer = solution or answer, extract_boxed(answer) or extract_boxed(solution)
    if answer is None:
        yield NO_BOX
    else:
        yield from _with_tests(problem_record(problem, answer, reasoning, solution, domain), row.get("tests"))


def preferences(
    row: dict, gap: str | None = None, betas: tuple[float, float, float] = (0.1, 0.2, 0.5)
) -> Iterator[dict | str]:
    """Read prompt, chosen, rejected, texts or messages, as a pair record.

    gap: of every pair; None: told by the row's `beta`, which is one of `betas`, those of small, medium and large gaps.
    """
    if gap is None:
        beta = row.get("beta")
        if not _typed(row, "beta", int | float):
            yield ODD
            return
        near = [name for name, value in zip(GAPS, betas, strict=True) if beta is not None and abs(beta - value) < 1e-6]
        if not near:
            yield f"with a beta other than {', '.join(map(str, betas))} (set betas or gap)"
            return
        gap = near[0]

    # texts become messages; some datasets (UltraFeedback's) repeat the prompt in front of each reply
    prompt, chosen, rejected = (
        [{"role": role, "content": row[key]}] if isinstance(row[key], str) else row[key]
        for key, role in (("prompt", "user"), ("chosen", "assistant"), ("rejected", "assistant"))
    )
    chosen, rejected = (side[-1:] if isinstance(side, list) else side for side in (chosen, rejected))
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


FORMATS = (  # the first whose columns are all there; "a|b": one of them
    (("conversations",), conversations),
    (("deepseek_reasoning", "deepseek_solution", "problem", "domain"), metadata),
    (("prompt", "chosen", "rejected"), preferences),
    (("problem", "answer", "reasoning"), columns),
    (("question|problem|instruction|prompt", "reasoning|responses"), several_chains),
)


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


def _first(row, *names):
    """Return the first of these columns that holds a text, or None."""
    return next((row[name] for name in names if isinstance(row.get(name), str) and row[name].strip()), None)


def _typed(row, names, kind=str):
    """Tell whether `row` is a dict in which these columns, where they are not missing or null, are of this type."""
    return isinstance(row, dict) and all(isinstance(row.get(name), kind | None) for name in names.split())
