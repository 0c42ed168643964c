"""What is cut from, and asked of, a rewritten chain beyond the agents' own verdicts."""

import asyncio
import re

from data.answers import compare, extract_boxed, final_answer

TAGS = re.compile(r"</?think>|<\|(?:begin|end)_of_(?:thought|solution)\|>")
LEAD_IN = re.compile(
    r"\A\W*(?:(?:sure|certainly|of course|okay)\b[^\n:]*[,!.]\s*)?"
    r"(?:(?:here(?:'s| is)|below is|the following is)\b[^\n]*:[*_ ]*(?:\n|\Z)"
    r"|(?:the\s+)?(?:(?:extended|simplified|revised|rewritten|improved|incorrect|corrupted)\s+)?"
    r"reasoning(?: process)?[*_ ]*:)"
    r"[*_\s]*",
    re.IGNORECASE,
)


def clean(text):
    """The chain of a reply: without tags of any response format and without a lead-in line ("Here is …:"); None if
    nothing remains. Anything else that is not reasoning stays, and is for the Verifier and the Critic to see."""
    text = LEAD_IN.sub("", TAGS.sub("", text).strip(), count=1).strip()
    return text or None


async def answer_check(chain, problem):
    """How the final answer of a chain compares with y: "agrees", "differs", "none" (the chain states none), "timeout",
    or "unchecked" (code has no answer to compare)."""
    if problem.get("domain") == "code":
        return "unchecked"
    answer = final_answer(chain)
    if answer is None:
        return "none"
    verdict = await asyncio.to_thread(compare, answer, problem["answer"])  # may run for seconds, in its own process
    if verdict == "different" and _named_in_closing_prose(chain, problem["answer"]):
        return "agrees"
    return {"equal": "agrees", "different": "differs"}.get(verdict, verdict)


def _named_in_closing_prose(chain, answer):
    """Whether a chain without a box closes with a sentence that names y among other numbers ("so 12 in all, as step 2
    shows"). Which of them it means cannot be told, so no rewrite is thrown away for it, and no r~ counts as wrong."""
    closing = next(line for line in reversed(chain.splitlines()) if line.strip())
    named = re.search(rf"(?<![\w.]){re.escape(answer)}(?!\w|\.\d)", closing)
    return extract_boxed(chain) is None and "=" not in closing and named is not None
