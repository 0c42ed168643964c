"""Multiple choice with four options: GPQA Diamond (198), MMLU (14,042).

Data. GPQA's authors ask that its questions never appear in plain text online: it is read from the user's own copy (a
file, or the hub with the user's token), its problems are private, and no message quotes them. Its file names the right
option first, so each question's options are put into an order of their own, by SHA-256 of id and option: the same
on every machine, and recorded. MMLU's options stand as they are; its `answer` is 0 to 3, or a letter.

Asked. `paper`: SkyThought's templates; MMLU's does not ask for a letter, hence options are also accepted by their text.
`r1`: the sentence of simple-evals, which DeepSeek-R1's report names for MMLU and GPQA. The options are a part of the
problem and laid out as SkyThought does under both.

Graded by grading/choices.py: the letter that is boxed or announced after the thought, never the English article.
"""

import hashlib
from collections import Counter

from errors import UserError
from evals.benchmarks import common
from evals.benchmarks.common import BenchmarkConfig, Problem
from grading import Grade
from grading import choices as letters
from grading.extraction import strip_thought
from grading.workers import Undecided

LETTERS = "ABCD"
OPTIONS = ("right", "wrong1", "wrong2", "wrong3")  # columns of GPQA


def load(kind: str, name: str, cfg: BenchmarkConfig) -> list[Problem]:
    """Read all problems, their options laid out in the question. Raises UserError."""
    subjects = Counter()

    def gpqa(number, texts, row, where):
        order = sorted(range(4), key=lambda i: hashlib.sha256(f"0/{texts['id']}/{i}".encode()).digest())
        options = [texts[OPTIONS[i]].strip() for i in order]
        question = texts["question"].strip() + "\n" + ", ".join(map("{}) {}".format, LETTERS, options))
        return Problem(name, texts["id"], question, LETTERS[order.index(0)], extra={"options": options},
                       record={"order": order}, private=True)  # fmt: skip

    def mmlu(number, texts, row, where):
        options = choices(row.get("choices"), where)
        subjects[texts["subject"]] += 1
        name_of = f"{texts['subject']}/{subjects[texts['subject']]}"  # MMLU has no ids, and a few questions twice
        question = texts["question"] + "\nAnswer Choices: " + " ".join(map("({}) {}".format, LETTERS, options))
        return Problem(name, name_of, question, letter(texts["answer"], where), extra={"options": options})

    return common.read(kind, name, cfg, gpqa if kind == "gpqa_diamond" else mmlu)


def choices(value: object, where: str) -> list[str]:
    if not (isinstance(value, list) and len(value) == len(LETTERS)):
        found = f"{len(value)}" if isinstance(value, list) else "none"
        raise UserError(f"{where}: a test problem needs choices, a list of {len(LETTERS)}; there are {found}")
    return [common.text({"choices": option}, ("choices",), where).strip() for option in value]


def letter(answer: str, where: str) -> str:
    """Turn 0 to 3, or A to D, into A to D."""
    found = dict(zip("0123", LETTERS, strict=True)).get(answer, answer)
    if found not in list(LETTERS):
        raise UserError(f"{where}: answer must be 0 to 3 or A to D")
    return found


def grade(problem: Problem, text: str, finished: bool) -> Grade:
    """Grade the option that a response names; neither the response nor an option is quoted."""
    if strip_thought(text) is None:
        return Grade("truncated", None, "the thought does not end")
    try:
        said = letters.choice(text, LETTERS, problem.extra["options"], finished)
    except Undecided as no:  # no verdict; its message quotes the response, and an option's letter
        return Grade(no.status, None, "the answer could not be compared with the options")
    if said is None and finished:
        return Grade("no_answer", None, "no option is boxed or announced")
    if said is None:
        return Grade("truncated", None, "cut at the length limit, and no option boxed before it")
    status = "correct" if said == problem.gold else "wrong"
    return Grade(status, said, f"option {said}" + f", not {problem.gold}" * (status == "wrong"))
