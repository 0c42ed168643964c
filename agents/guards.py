"""What a rewritten chain must pass besides the agents' verdicts: guards against the ways in which rewriters go wrong.

`clean` cuts what is no reasoning, `faults` names the guards that a rewrite fails, `answer_check` compares its final
answer with y. A failed guard costs a try and is counted by role and name; the paper has none of them.
"""

import asyncio
import re
import textwrap
import zlib
from collections.abc import Iterator
from pathlib import Path

import yaml

from grading import UNDECIDED
from grading.answers import compare, extract_boxed, final_answer, grade
from grading.programs import run_tests

TAGS = re.compile(r"</?think>|<\|(?:begin|end)_of_(?:thought|solution)\|>")
TALK = {  # {guard: patterns}
    guard: [re.compile(row, re.MULTILINE) for row in rows]
    for guard, rows in yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8")).items()
}


def clean(text: str) -> str | None:
    """Returns the chain of a reply: without tags of any response format and without a lead-in line ("Here is …:"); None
    if nothing remains. Anything else that is not reasoning stays, and is for the guards, the Verifier and the Critic.
    """
    text = TALK["lead_in"][0].sub("", TAGS.sub("", text).strip(), count=1).strip()
    return text or None


# --- guards ---

NOT_LATIN = re.compile(r"[\u0400-\u1cff\u2e80-\ua4ff\ua800-\udfff\uf900-\ufdff\uff66-\uffdc\U00010000-\U0003ffff]")


NEAR_COPY = 0.95  # of the 4-word shingles of a rewrite and its source, how many both have
DRIFT = 0.02  # of the letters, how many more or fewer are of another script than in the source


def faults(chain: str, source: str, mode: str) -> Iterator[str]:
    """Yield the names of the guards that a rewrite fails. mode: "easy" (extended), "hard" (simplified) or "incorrect".
    source: the chain that was rewritten. Some milliseconds for a chain of 16k tokens.

    refusal      it opens with one ("I'm sorry, but I can't …")
    scaffold     role tokens, thought tags or section headings of the prompt are left in it
    meta         it talks about the task, the given answer or the original reasoning
    giveaway     an incorrect chain names its own error ("mistakenly"): DPO would learn the word
    loop         it ends in the same piece over and over, or repeats itself throughout
    language     it is in another script
    near_copy    it is about as long as its source and shares most of its words; an incorrect chain may
    """
    text, before = chain.lower(), source.lower()

    def exceeds(guard):
        """Whether it talks so, and more than its source: R1 itself says "the given answer" now and then, and may."""
        said = sum(len(row.findall(text)) for row in TALK[guard])
        return said > 0 and said > sum(len(row.findall(before)) for row in TALK[guard])

    # talk: what a rewriter says about its task
    opened, opened_before = (any(row.match(t) for row in TALK["refusal"]) for t in (text, before))
    if opened and not opened_before:
        yield "refusal"
    yield from filter(exceeds, ("scaffold", "meta", "giveaway") if mode == "incorrect" else ("scaffold", "meta"))
    # degenerate texts
    if loops(chain):
        yield "loop"
    if drifts(chain, source):
        yield "language"
    if mode != "incorrect" and is_copy(chain, source):
        yield "near_copy"


def is_copy(a: str, b: str) -> bool:
    """Whether two texts have about as many words, and the Jaccard similarity of their sets of 4-word shingles reaches
    NEAR_COPY. The first is quickly seen, and settles it for most rewrites."""
    a, b = a.split(), b.split()
    if min(len(a), len(b)) < NEAR_COPY * max(len(a), len(b)):
        return False
    a, b = (set(zip(t, t[1:], t[2:], t[3:], strict=False)) or {tuple(t)} for t in (a, b))
    return len(a & b) >= NEAR_COPY * len(a | b)


TAIL, LOOP_CHARS, LOOP_TIMES = 2000, 300, 5
SQUEEZE_CHARS, SQUEEZE = 2000, 8


def loops(text: str) -> bool:
    """Whether the text ends in the same piece at least five times over (300 characters in all), or is repetitive as a
    whole: reasoning deflates 2 to 4 times, text that goes round in circles 8 times and more."""
    tail = text.rstrip()[: -TAIL - 1 : -1]  # reversed: its beginnings are the endings of the text
    border = [0] * len(tail)  # Knuth-Morris-Pratt: of each beginning, its longest ending that also begins it
    for i in range(1, len(tail)):
        k = border[i - 1]
        while k and tail[i] != tail[k]:
            k = border[k - 1]
        border[i] = k + (tail[i] == tail[k])
        size, period = i + 1, i + 1 - border[i]
        if size >= LOOP_CHARS and size >= LOOP_TIMES * period:
            return len(set(tail[:period])) > 1  # a ruled line is no loop
    if len(text) <= SQUEEZE_CHARS:
        return False
    data = text.encode()
    return len(data) > SQUEEZE * len(zlib.compress(data, 1))


def drifts(text: str, source: str) -> bool:
    """Whether the share of letters from other scripts than Latin and Greek changed by more than DRIFT, and
    twofold: formulas move the share of a Chinese chain, but do not halve it."""
    low, high = sorted(_other_scripts(t) for t in (text, source))
    return high - low > DRIFT and high >= 2 * low


def _other_scripts(text):
    found = len(NOT_LATIN.findall(text))
    return found and found / max(1, sum(map(str.isalpha, text)))


# --- the final answer ---

# unlike grading.extraction.extract_code: a block that never ends is none, and the last one counts whatever its tag
CODE_BLOCK = re.compile(r"^[ \t]*```[^\n`]*\n(.*?)^[ \t]*```", re.MULTILINE | re.DOTALL)
MAX_TESTS = 10  # of a problem's: some have hundreds, and every rewrite meets them


def is_code(problem: dict) -> bool:
    return problem.get("domain") == "code" or bool(problem.get("tests"))


async def answer_check(chain: str, problem: dict) -> str:
    """Tell how the final answer of a chain compares with y: "agrees", "differs", "none" (it states none), "unshown"
    (neither found equal nor shown to differ), "timeout" or "error" (that could not be told), or "unchecked".

    Code is compared by its tests: the chain's last code block passes ("agrees") or fails them. It is unchecked where
    the problem has no tests, or where neither the chain nor the original holds a code block.
    """
    if is_code(problem):
        if not problem.get("tests") or not (CODE_BLOCK.search(chain) or CODE_BLOCK.search(problem["reasoning"])):
            return "unchecked"
        return {True: "agrees", False: "differs", None: "none"}[await _passes(chain, problem)]
    answer = final_answer(chain)
    if answer is None:
        return "none"
    # may run for seconds, in its own process
    verdict = await asyncio.to_thread(compare, answer, problem["answer"], shown=True)
    if verdict in ("different", "unshown") and _named_in_closing_prose(chain, problem["answer"]):
        return "agrees"
    return {"equal": "agrees", "different": "differs"}.get(verdict, verdict)


async def solves(text: str, problem: dict) -> bool | None:
    """Whether a solution ends in the right answer, or in a program that passes the problem's tests. None: that could
    not be told."""
    if is_code(problem):
        return bool(await _passes(text, problem))
    status = (await asyncio.to_thread(grade, text, problem["answer"])).status
    return None if status in UNDECIDED else status == "correct"


async def _passes(text, problem):
    """Whether the last code block passes the first tests; None without a block. Floats may be off by 1e-6."""
    blocks = CODE_BLOCK.findall(text)
    if not blocks:
        return None
    verdict = await asyncio.to_thread(
        run_tests, textwrap.dedent(blocks[-1]), problem["tests"], most=MAX_TESTS, wrapped=True
    )
    return verdict.tolerant


def _named_in_closing_prose(chain, answer):
    """Whether a chain without a box closes with a sentence that names y among other numbers ("so 12 in all, as step 2
    shows"). Which of them it means cannot be told, so no rewrite is thrown away for it, and no r~ counts as wrong."""
    closing = next(line for line in reversed(chain.splitlines()) if line.strip())
    named = re.search(rf"(?<![\w.]){re.escape(answer)}(?!\w|\.\d)", closing)
    return extract_boxed(chain) is None and "=" not in closing and named is not None
