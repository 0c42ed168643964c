"""Rows of public datasets -> records. One generator per shape; a row that cannot be used yields the reason, a string.

The shape is told from the columns (`shape_of`), never from a dataset's name or from the text of a system prompt.

    conversations                          Bespoke-Stratos-17k, Sky-T1-data-17k, OpenThoughts-114k (`default`): two
                                           turns, reasoning and solution in tags; no answer column
    problem, deepseek_reasoning, …         OpenThoughts-114k (`metadata`): with y, and tests for code
    scores of verbosity and difficulty     OmniThought: several chains a problem, or one chain a row
    question, (deepseek_)attempt, …        s1K, s1K-1.1
    question, solution, answer             LIMO: `solution` is the chain
    prompt, chosen, rejected               EasyDistill's CogPO rows (with beta) and other preference data: pair records
    problem, answer, reasoning             records of this project, or any dataset through `columns`
"""

import hashlib
import json
import re

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
RV, CD, CORRECT = "reasoning_verbosity", "cognitive_difficulty", "logical_correctness"
LONGEST_ANSWER = 200  # characters of a solution column that is the answer itself

NO_BOX = "without an answer: no box in the solution"
NO_TAGS = "without a tagged thought and solution"
ODD = "with an unexpected type"


def shape_of(row):
    """The generator for rows with these columns, or None if no shape fits."""
    for has, shape in SHAPES:
        if all(any(name in row for name in names.split("|")) for names in has):
            return shape
    return None


def conversations(row):
    """{"conversations": [{"from", "value"}, …]} or {"role", "content"}; roles user/human and assistant/gpt."""
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


def metadata(row):
    """OpenThoughts-114k's metadata configuration."""
    if not _typed(row, "problem deepseek_reasoning deepseek_solution domain ground_truth_solution starter_code"):
        yield ODD
        return
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
    """The record, with tests {"inputs": […], "outputs": […], "fn_name"?} given as a dict or its JSON if build_crv.py
    would take them; if not, the reason and the record without."""
    if value:
        try:
            tests = json.loads(value) if isinstance(value, str) else value
            check_tests(tests)
        except ValueError:  # no JSON, or a UserError
            yield "tests that cannot be run (their problems are kept)"
        else:
            record = record | {"tests": {key: value for key, value in tests.items() if value is not None}}
    yield record


def scored(row):
    """OmniThought: a record per chain, with its scores (0-9) as `rv` and `cd`; chains judged wrong are left out."""
    chains = next((row[key] for key in ("reasoning", "responses") if isinstance(row.get(key), list)), [row])
    if not _typed(row, "domain") or not all(isinstance(chain, dict) for chain in chains):
        yield ODD
        return
    question = _first(row, "question", "problem", "instruction", "prompt")
    for chain in chains:
        text = _first(chain, "full_response", "response", "output", "reasoning") or ""
        reasoning, solution = tagged_parts(text)
        reasoning, solution = (text, "") if reasoning is None else (reasoning, solution)
        answer = _first(row, "answer", "expected_answer") or extract_boxed(solution or text)
        rv, cd = _score(chain, RV), _score(chain, CD)
        if _score(chain, CORRECT) == 0:
            yield "a chain judged to be wrong"
        elif rv is None or cd is None:
            yield "a chain without its scores"
        elif not question or answer is None:
            yield NO_BOX
        else:
            domain = "math" if row.get("domain") is None else row["domain"]
            yield problem_record(question, str(answer), reasoning, solution, domain) | {"rv": rv, "cd": cd}


def s1k(row):
    """s1K (thinking_trajectories, attempt) and s1K-1.1 (deepseek_thinking_trajectory, deepseek_attempt)."""
    trajectories = row.get("deepseek_thinking_trajectory") or row.get("thinking_trajectories") or ""
    reasoning = trajectories[0] if isinstance(trajectories, list) else trajectories
    if not isinstance(reasoning, str) or not _typed(row, "question solution deepseek_attempt attempt cot_type"):
        yield ODD
        return
    attempt = row.get("deepseek_attempt") or row.get("attempt") or ""
    truth = (row.get("solution") or "").strip()
    answer = extract_boxed(truth) or (truth if len(truth) <= LONGEST_ANSWER else None) or extract_boxed(attempt)
    if not answer or not reasoning:
        yield "without an answer or reasoning"
    else:
        yield problem_record(row["question"] or "", answer, reasoning, attempt, row.get("cot_type") or "math")


def limo(row):
    """LIMO: the chain is in `solution`."""
    yield from columns({"problem": row["question"], "answer": row["answer"], "reasoning": row["solution"]})


def columns(row):
    """problem, answer, reasoning, and what else a problem record may have. An answer of several lines or with a box is
    a solution: y is its last box. Reasoning in tags is taken out of them."""
    if (
        not _typed(row, "reasoning solution domain")
        or not _typed(row, "rv cd", int | float)
        or not _typed(row, "problem answer", str | int | float)
    ):
        yield ODD
        return
    problem, answer = str(row["problem"] or ""), str(row["answer"] if row["answer"] is not None else "")
    reasoning, solution = tagged_parts(row["reasoning"] or "")
    reasoning, solution = (row["reasoning"] or "", "") if reasoning is None else (reasoning, solution)
    solution, domain = row.get("solution") or solution, row.get("domain") or "math"
    if domain != "code" and (extract_boxed(answer) or len(answer) > LONGEST_ANSWER):
        solution, answer = solution or answer, extract_boxed(answer)
    if answer is None:
        yield NO_BOX
    else:
        record = problem_record(problem, answer, reasoning, solution, domain)
        record |= {key: row[key] for key in ("rv", "cd") if row.get(key) is not None}
        yield from _with_tests(record, row.get("tests"))


def preferences(row, gap=None, betas=(0.1, 0.2, 0.5)):
    """prompt, chosen, rejected as texts or messages -> a pair record. gap: of every pair; None: told from `beta`."""
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
    prompt, chosen, rejected = (
        [{"role": role, "content": row[key]}] if isinstance(row[key], str) else row[key]
        for key, role in (("prompt", "user"), ("chosen", "assistant"), ("rejected", "assistant"))
    )
    # some datasets (UltraFeedback's) repeat the prompt in front of each reply
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


SHAPES = (  # the first whose columns are all there; "a|b": one of them
    (("conversations",), conversations),
    (("deepseek_reasoning", "deepseek_solution", "problem", "domain"), metadata),
    (("prompt", "chosen", "rejected"), preferences),
    (("question", "thinking_trajectories|deepseek_thinking_trajectory"), s1k),
    ((f"{RV}|Reasoning_Verbosity",), scored),
    (("problem", "answer", "reasoning"), columns),
    (("question|problem|instruction|prompt", "reasoning|responses"), scored),
    (("question", "solution", "answer"), limo),
)


def tagged_parts(text):
    """(reasoning, solution) of a text in Bespoke-Stratos' or <think> tags; (None, "") if it has neither."""
    found = TAGGED.search(text)
    if found is None:
        return None, ""
    return (found["reasoning"] or found["thought"] or "").strip(), (found["solution"] or found["rest"] or "").strip()


def problem_record(problem, answer, reasoning, solution, domain):
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
    return next((row[name] for name in names if isinstance(row.get(name), str) and row[name].strip()), None)


def _score(chain, name):
    """An integer score: the column's value, or its `level`, in either spelling; None without one."""
    value = next((chain[key] for key in (name, name.title()) if chain.get(key) is not None), None)
    value = value.get("level") if isinstance(value, dict) else value
    return int(value) if isinstance(value, int | float) and 0 <= value <= 9 else None


def _typed(row, names, kind=str):
    """Whether `row` is a dict in which these columns, where they are not missing or null, are of this type."""
    return isinstance(row, dict) and all(isinstance(row.get(name), kind | None) for name in names.split())
