"""Final answers: where a response says them. After its thought: the last box, an "answer is", the last value; or, where
programs are asked for, the last block of code."""

import itertools
import re
import textwrap

from grading.notation import is_prose, normalise
from grading.quantities import split

LONGEST = 2000  # characters of an answer; what is longer is compared as text only
MANY = 20  # boxes of one list

THOUGHT_ENDS = ("</think>", "<|end_of_thought|>")
THOUGHT_STARTS = ("<think>", "<|begin_of_thought|>")


def strip_thought(text: str) -> str | None:
    """Return what follows the thought; all of a text without one; None if the thought is unfinished."""
    ends = [text.rfind(tag) + len(tag) for tag in THOUGHT_ENDS if tag in text]
    if ends:
        return text[max(ends) :]
    return None if any(tag in text for tag in THOUGHT_STARTS) else text


BRACE = re.compile(r"\\(?:boxed|fbox)\s*\{|\\.|[{}]", re.DOTALL)  # the second: an escaped brace is text


UNBRACED = re.compile(
    r"\\(?:boxed|fbox)(?:\s+|(?=[\\\d]))(?!\s*\{)([^${}\n]*?(?:\{[^{}]*\}[^${}\n]*?)*?)(?=\s*(?:\$|\\\)|\\\]|[.,;]?(?:\s|$)))"
)


def _boxes(text):
    """(start, start and end of the content) of each balanced \\boxed{…} or \\fbox{…}, the last one first.

    One pass: models do repeat `\\boxed{` ten thousand times.
    """
    unclosed, found = [], []
    for match in BRACE.finditer(text):
        if match.group().endswith("{") and match.group() != "\\{":
            unclosed.append(match)
        elif match.group() == "}" and unclosed:
            opening = unclosed.pop()
            if opening.group() != "{":
                found.append((opening.start(), opening.end(), match.start()))
    return sorted(found, reverse=True)


def _contents(text):
    """(start, end, content) of each outermost box that is not empty, the last one first; without the boxes inside."""
    end, outermost = -1, []
    for start, begin, stop in reversed(_boxes(text)):
        if start > end:
            outermost.append((start, begin, stop, []))
            end = stop
        else:
            outermost[-1][3].append((start, begin, stop))
    for start, begin, stop, inner in reversed(outermost):
        cuts = sorted([(a, b) for a, b, _ in inner] + [(c, c + 1) for _, _, c in inner])
        edges = [begin, *(edge for cut in cuts for edge in cut), stop]
        content = "".join(text[a:b] for a, b in zip(edges[::2], edges[1::2], strict=True)).strip()
        if content:
            yield start, stop, content


def extract_boxed(text: str) -> str | None:
    """Return the content of the last balanced \\boxed{…} or \\fbox{…} that is not empty, or None. Of nested ones the
    outermost."""
    return next((content for _, _, content in _contents(UNBRACED.sub(r"\\boxed{\1}", text))), None)


def extract_boxes(text: str, most: int) -> list[str]:
    """Return the contents of the last `most` such boxes, each once, in the order of the text."""
    contents = [content for _, _, content in itertools.islice(_contents(text), most)]
    return list(dict.fromkeys(contents[::-1]))


# between the boxes of one list: a unit or noun, then "and", a comma, a name with its equals sign; no new sentence
JOINED = re.compile(
    r"[^.!?,;\n]{0,40}?(?:[,;&]|\b(?:and|or)\b|\\q?quad)(?:[\s$(){}\\\[\],]|\b(?:and|or)\b|q?quad\b|text\b|[A-Za-z](?:_\{?\w+\}?)?\s*=)*"
)


def extract_list(text: str) -> list[str]:
    """Return the answers of the list that ends with the last box, each once: `\\boxed{1} and \\boxed{2}`."""
    boxes = list(itertools.islice(_contents(text), MANY))
    contents = [content for _, _, content in boxes[:1]]
    for (start, _, _), (_, end, content) in itertools.pairwise(boxes):
        if not JOINED.fullmatch(text, end + 1, start):
            break
        contents.insert(0, content)
    return list(dict.fromkeys(contents))


OPENING, CLOSING = "([{", ")]}"
SEPARATOR = re.compile(r"[,;]|\\(?:text|mbox|mathrm)\s*\{\s*(?:and|or)\s*\}|(?<![A-Za-z\\])(?:and|or)(?![A-Za-z])")


def split_top(text: str, separator: re.Pattern = SEPARATOR) -> list[str]:
    """Split a text at separators that stand in no bracket. `[2,5)` closes too, and a lone brace is text."""
    parts, begin, depth, at = [], 0, 0, 0
    while at < len(text):
        if depth == 0 and (match := separator.match(text, at)):
            parts.append(text[begin:at].strip())
            begin = at = match.end()
            continue
        if text[at] in OPENING:
            depth += 1
        elif text[at] in CLOSING:
            depth = max(0, depth - 1)
        at += 1
    return [part for part in [*parts, text[begin:].strip()] if part]


# "answer is", also as the languages say it that are asked most
ANSWER = r"\banswer\b|答案|答え|答|정답|\b(?:ответ|réponse|respuesta|resposta|risposta|antwort|jawaban)\b"
EXPLICIT = re.compile(
    rf"(?:(?:{ANSWER})[*_]{{0,4}}\s{{0,9}}(?:(?:is|are|est|es|é|è|ist|adalah)\b(?!n['’]t)|[=:：是为為は은는])"
    r"|^[ \t]{0,9}A[ \t]{0,9}:|####)"
    r"[*_]{0,4}\s{0,9}[:：]?\s{0,9}(?P<value>\S.*)$",  # bounded: a hundred thousand blanks must not be tried in turn
    re.IGNORECASE | re.MULTILINE,
)
TAGGED = re.compile(r"<answer>([^<>]{1,2000})</answer>", re.IGNORECASE)
NUMBER = re.compile(
    r"(?<![A-Za-z0-9_.)])[-−]?(?:\d+\s+\d+/\d+|(?:\d+(?:,\d{3})*(?:\.\d+)?|\.\d+)(?:/\d+)?)"
    r"(?:\s+(?:dozen|hundred|thousand|[mbtr]+illion)\b)?"
)


def final_answer(text: str, equation: bool = False) -> str | None:
    """Return the answer that a text ends with, or None. For texts after the thought, and for bare reasoning chains.

    The last box; else what an "answer is …" line says; else, in the last line that is not empty, all of it if it is
    only mathematics, what follows its last "=" (equation: keep all of an equation), or its last number.
    """
    boxed = extract_boxed(text)
    if boxed is not None:
        return boxed
    if tagged := TAGGED.findall(text):
        return _clean(tagged[-1])
    text = re.sub(r"<\|\w+\|>", "", text)
    explicit = list(EXPLICIT.finditer(text))
    if explicit and not _asserted(text, explicit[-1].start(), begin=text.rfind("\n", 0, explicit[-1].start()) + 1):
        return None
    if explicit:
        sentence = re.split(r"(?<=[\w$*)}\]])\.(?:\s|$)", explicit[-1]["value"][:LONGEST])[0]
        return _value(sentence, first=True)
    lines = [line for line in text.splitlines() if re.search(r"\w", line)]
    return _last_value(lines[-1][-LONGEST:], equation) if lines else None


EQUALS = re.compile(r"(?<![<>!:\\=])=(?![=>])")
SENTENCE = re.compile(r"[.!?]\s*\$?\s+(?=[A-Z])")
FORMULA = re.compile(r"(?<!\\)\$([^$]+)(?<!\\)\$")


def _last_value(line, equation):
    line = re.sub(r"\s+\([a-z]+ [^()]*\)\W*$", "", _dollars(line))  # … = 20 (for 2 days).
    formulas = list(FORMULA.finditer(line))
    rest = line[formulas[-1].end() :] if formulas else line
    later = SENTENCE.search(line, formulas[-1].end(1) - 1) if formulas else None
    if later and NUMBER.search(line, later.end()):
        formulas, rest = [], line[later.end() :]  # … $x = 2.$ So it grows by 100%.
    if formulas and not EQUALS.search(rest):
        begin = formulas[-2].end() if len(formulas) > 1 else 0
        formula = formulas[-1][1] if _asserted(line, *formulas[-1].span(), begin) else ""
        return _clean(formula if equation else EQUALS.split(formula)[-1])
    if not formulas and not is_prose(rest) and (equation or not EQUALS.search(rest)):
        return _clean(rest)
    if equals := list(EQUALS.finditer(rest)):
        return _value(rest[equals[-1].end() :], first=False) if _asserted(rest, equals[-1].start()) else None
    numbers = [n for n in NUMBER.finditer(rest) if not NAMED.search(rest, 0, n.start())]
    begin = numbers[-2].end() if len(numbers) > 1 else 0
    if not numbers or GIVES_UP.search(line) or not _asserted(rest, *numbers[-1].span(), begin):
        return None
    return numbers[-1].group()


def _asserted(text, start, end=None, begin=0):
    """Whether a value is said to hold where it stands: not denied, doubted, supposed or only a bound in its clause.

    The clause begins after punctuation or at `begin`, where the value before it ends: "it is not 10 but 12".
    """
    clause = re.split(r"[,;:.!?](?=\s)", text[begin:start])[-1]
    return not (
        DENIED.search(clause)
        or RANGE.search(text, max(0, start - 40), start)
        or (end and DENIED_AFTER.match(text, end))
    )


DENIED = re.compile(  # at most three words before the value: "it could be seen that all of it is 12" says 12
    r"(?:\b(?:not|cannot|ne|never|neither|nor|unless|if|suppose|assum\w+|(?:might|could|may) be|perhaps|maybe"
    r"|impossible|no way|doubt|wrong|incorrect|(?:less|more|fewer|greater|larger|smaller|other|rather) than|exceeds?"
    r"|не|nicht|no es)\b|n['’]t\b|[不没]是?)(?:\s+(?!then\b|so\b)[a-z]+){0,3}[\s$]*$",
    re.IGNORECASE,
)
RANGE = re.compile(r"\bbetween(?:\s\S+\sand)?[\s$]*$", re.IGNORECASE)
DENIED_AFTER = re.compile(
    r"[\s$]*(?:\?|(?:is|are|was|can|could|would|does)(?:\s?not|n['’]t|\s+(?:wrong|incorrect|impossible))\b)"
)
GIVES_UP = re.compile(
    r"\b(?:sorry|give up|unable to|no idea|(?:don|can|could|do)(?:['’]?t| ?not)\s+(?:know|help|solve|answer))\b", re.I
)
NAMED = re.compile(  # a number that is a name
    r"\b(?:problem|question|step|part|case|figure|equation|page|example|exercise|line|chapter|section)s?[\s(#]*$", re.I
)
CLAUSE = re.compile(r"[,;:]\s+(?=[A-Za-z]{2})|\s+(?=(?:which|because|since|as|so|when|where|for)\b)")
# a number beside these is a part of something: an expression, a range, a choice, what the answer is not
BEFORE = re.compile(r"(?:[-+*/^×·÷!({\\]|\b(?:not|between|or)|\\sqrt|√)[\s$]*$")
AFTER = re.compile(r"[\s$]*(?:[-+*/^×·÷!\\√∛]|\b(?:or|and|to)\b[\s$]*-?[\d.\\])")


def _value(text, first):
    """The value in a phrase: all of it if it is mathematics, else its $…$, else its first or last number.

    No number of an expression or of a choice is taken for the value: "2 + \\sqrt{3} dollars", "12 or 13 dogs".
    """
    text = _dollars(text)
    cleaned = _clean(text)
    if cleaned is None or not is_prose(cleaned):
        return cleaned
    if re.match(r"(?:not|at least|at most|wrong|incorrect)\b", cleaned, re.I) or not _asserted(
        cleaned, (NUMBER.search(cleaned) or re.search("$", cleaned)).start()
    ):
        return None  # what it is not, says nothing
    head = CLAUSE.split(cleaned)[0]
    if first and not is_prose(head) and re.search(r"\w", head):
        return _clean(head)
    formulas, numbers = FORMULA.findall(text), list(NUMBER.finditer(cleaned))
    if formulas and (re.search(r"\d", formulas[-1]) or not numbers):  # "the largest $n$ is 34" says 34
        return _clean(formulas[-1])
    if first and EQUALS.search(cleaned):
        return _value(EQUALS.split(cleaned)[-1], first=True)
    if numbers:
        number = numbers[0 if first else -1]
        torn = first and (BEFORE.search(cleaned, 0, number.start()) or AFTER.match(cleaned, number.end()))
        if torn and (whole := split(normalise(cleaned))) and whole[1] and not is_prose(whole[0]):
            return cleaned  # 3\\sqrt{2} cm
        return None if torn else number.group()
    return cleaned if first else None


def _dollars(text):
    """One math delimiter instead of four."""
    return re.sub(r"(?<!\\)\\[()\[\]]|\$\$", "$", text)


def _clean(text):
    """Without Markdown, math delimiters and final punctuation; None if no letter, digit or symbol remains."""
    text = text.strip().strip("*_`").strip()
    text = re.sub(r"(?<![\d)}])!+$", "", text.rstrip(".,;:? "))  # 3! may be a factorial
    text = re.sub(r"^\$+\s*|\s*\$+$", "", text.rstrip(".,;:? ")).strip("*").strip().rstrip(".,;: 。")
    if sum(map(text.count, ")]")) > sum(map(text.count, "([")):  # [Final answer: 18]
        text = text.rstrip(")]")
    text = re.sub(r"^<([^<>]*)>$", r"\1", text)
    unclosed = re.search(r"\\(?:boxed|fbox)\s*\{", text) and extract_boxed(text) is None
    return text if re.search(r"[\w∞∅π]", text) and not unclosed else None


TAGS = re.compile("|".join(map(re.escape, THOUGHT_STARTS + THOUGHT_ENDS)))


def split_thought(text: str) -> tuple[str, str | None]:
    """Return (the thought without its tags, what follows it). Without a thought ("", text); None follows an unfinished
    one."""
    said = strip_thought(text)
    thought = text if said is None else text.removesuffix(said)
    return TAGS.sub("", thought).strip(), said


# --- programs ---

FENCE = re.compile(r"^[^`]*(?P<fence>`{3,})[ \t]*(?P<language>[^`\s]*)[^`]*$")
PYTHON = ("python", "python3", "py", "py3", "pypy3")


def extract_code(text: str, finished: bool = True) -> str | None:
    """Return the program of an answer: its last block tagged as Python, else its last block; None if there is none.

    A block that never ends counts as one only if the response was not cut off; if it was, what is there is no answer,
    whatever stands in earlier blocks.
    """
    # one pass over the lines, as Markdown reads them: a fence closes only the block that a fence like it has opened
    blocks, fence = [], None
    for line in text.replace("\r\n", "\n").split("\n"):
        if fence is None:
            opening = FENCE.match(line)
            if opening:
                fence = opening["fence"]
                blocks.append((opening["language"].lower(), []))
        elif line.strip().startswith(fence):
            fence = None
        else:
            blocks[-1][1].append(line)
    if fence is not None and not finished:
        return None
    programs = [(language, textwrap.dedent("\n".join(lines))) for language, lines in blocks]
    programs = [(language, code) for language, code in programs if code.strip()]
    tagged = [code for language, code in programs if language in PYTHON]
    return (tagged or [code for _, code in programs] or [None])[-1]
