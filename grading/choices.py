"""Multiple choice: which option does a response name?

    choice("… so the answer is \\\\boxed{C}. This is a standard result.") == "C"

Only what follows the thought is read, and only a letter that is marked as an answer counts: boxed, after "answer is" or
"option", called correct, or alone on a line. So the English article "A" is never an option, and two letters at once
("B or C") are no answer.
"""

import re

from grading import UNDECIDED
from grading.answers import compare
from grading.extraction import ANSWER, extract_boxed, extract_list, strip_thought
from grading.notation import is_prose, normalise
from grading.workers import Undecided

LAST = 2000  # characters at the end of a response in which an unboxed answer is looked for
SPAN = 400  # characters after "answer is" that may hold it

WRAPPER = re.compile(r"\\(?:text\w*|math\w+|mbox|operatorname|boxed|fbox)\s*\{([^{}]*)\}")
NOUN = r"(?:option|choice|answer|statement|alternative)"
MARKS = r"[\s*_`$\"'“”:：(\[<]*"  # what may stand before a letter
# "A" before a word in lower case is the article, unless the word goes on about the option; "C-" and "C =" name none
GOES_ON = r"because|since|as|is|for|due|which|and|or|but|with|by|on|from|given"
LETTER = rf"(?-i:{MARKS}(?<![A-Za-z])(?P<letter>[ABCD])(?![\w'’^]|\s*=|-\w)(?!(?<=A)\s+(?!(?:{GOES_ON})\b)[a-z]))"
SURELY = (
    r"(?:\s+(?:for sure|(?:most )?likely|(?:clear|obvious|definite|certain|sure|probab)ly|indeed|actually|then))?,?"
)
BE = rf"(?:(?:is|are|would be|should be|must be|est|es|é|è|ist)(?![A-Za-z])|[=:：是为為选選])[*_:：]*{SURELY}"
END = r"(?=[\s*_`$)\]]*(?:[.,;:!\n]|\Z))"
STATEMENTS = [  # how an option is announced; of all of these the last one counts
    rf"(?:{ANSWER}|\banswers\b)[*_]*(?:\s+(?:choice|option))?\s*{BE}(?:\s+{NOUN})?{LETTER}",
    rf"\b(?:correct|right|best)\s+(?:{NOUN}|one)\s*{BE}(?:\s+{NOUN})?{LETTER}",
    rf"\b(?:I|we)(?:\s+\w+)?\s+(?:choose|select|pick|go with)\b(?:\s+{NOUN})?{LETTER}",
    rf"(?:^|[.,;:]|\b(?:so|thus|hence|therefore|actually|{NOUN})){LETTER}[\s*)\].$]*is\s+(?:the\s+)?(?:correct|right)\b",
    rf"\b(?:so|thus|hence|therefore)[,:]?\s+(?:it(?:'s|\s+is)\s+)?{NOUN}{LETTER}{END}",
    rf"\b(?:so|thus|hence|therefore|I think|I believe)[,:]?(?:\s+I think)?\s+it(?:['’]s|\s+is){LETTER}{END}",
    rf"\bnot\s+(?:{NOUN}\s*)?[*(\[$]*[ABCD]\b[^.\n]{{0,9}}\b(?:is|but|it's|rather)\b(?:\s+{NOUN})?{LETTER}{END}",
]
# only named, and not in a sentence about it: counts where nothing is announced
MENTION = rf"\b{NOUN}{LETTER}(?![\s*)\]]*(?!{GOES_ON.replace('is|', '')})[a-z])"
VERDICT = r"\s*(?:(?:is|are|was|seems?)\b|not\b|no\b|yes\b|true\b|false\b|wrong\b|incorrect\b|correct\b)"


def choice(text: str, letters: str = "ABCD", options: list[str] | None = None, finished: bool = True) -> str | None:
    """Return the letter of the option that a response names, or None.

    letters: the options' letters, in order. options: their texts, in the same order; a response may then also give an
    option's own text. finished: False when generation hit its length limit; then only a box counts.
    Raises Undecided where what was said equals no option, and could not be compared with one (answers.compare).
    In this order: the last box, what is announced as the answer, a letter alone on a line, an option's own text.
    """
    said = strip_thought(text)
    if said is None:
        return None
    # the box first; one that could not be compared is no verdict: a letter that is announced beside it still counts
    boxed, undecided, found = extract_boxed(said), None, None
    if boxed is not None:
        several = {_letter(content, letters, options) for content in extract_list(said)} - {None}
        if len(several) > 1:  # \boxed{A} or \boxed{B}
            return None
        try:
            found = _letter(boxed, letters, options) or _own_text(boxed, letters, options)
        except Undecided as failed:
            undecided = failed
    if found is None and finished:
        said = _unwrap(re.sub(r"<\|\w+\|>|</?answer>", "\n", said[-LAST:]))
        found = _announced(said, letters) or _line(said, letters) or _announced_text(said, letters, options, boxed)
    if found is None and undecided:
        raise undecided
    return found


def _unwrap(text):
    previous = None
    while text != previous:
        previous, text = text, WRAPPER.sub(r"\1", text)
    return re.sub(r"\\(?:[()\[\],;: ]|quad|displaystyle)|[{}]", " ", text)


def _letter(content, letters, options):
    """The letter that a box holds: C, (c), \\text{C}, "C) 12 cm", "Option C", or "C - 48" where 48 is C's text."""
    content = _unwrap(content).strip().strip("*_$`. ")
    content = re.sub(rf"^(?:the\s+)?(?:correct\s+)?{NOUN}\b[\s:]*(?:is\b)?\s*", "", content, flags=re.IGNORECASE)
    match = re.fullmatch(rf"[(\[]?\s*([{letters}])\s*[)\]]?[.:]?", content, re.IGNORECASE)
    both = re.fullmatch(rf"\(?([{letters}])\)?\s*(?:[-–—,:=(]|(?<=\s))\s*(\S.*?)\)?", content)
    if both and options and not match:
        return both[1] if _plain(both[2]) == _plain(options[letters.index(both[1])]) else None
    match = match or re.match(rf"(?:[(\[]\s*([{letters}])\s*[)\]]|([{letters}])\s*[).:])\s*\S", content)
    if match is None or re.match(VERDICT, content[match.end() - 1 :], re.I) or len(_marked(content, letters)) > 1:
        return None
    return match[match.lastindex].upper()


def _marked(line, letters):
    """The letters that stand as labels in a line: {A, B} for "A) no, (B) maybe"."""
    return set(re.findall(rf"(?<![\w'’])([{letters}])[).:](?=[\s*]|$)", line))


def _announced(text, letters):
    """The letter of the last statement that announces one; None if it names two."""
    matches = [match for statement in STATEMENTS for match in _matches(statement, text, letters)]
    matches = matches or _matches(MENTION, text, letters)
    if not matches:
        return None
    last = max(matches, key=lambda match: match.start("letter"))
    joined = rf"[\s*)\]$.]*(?:,|/|&|\bor\b|\band\b)\s*(?:{NOUN}\s*)?[*(\[$]*([{letters}])(?![\w'’])"
    another = re.match(joined, text[last.end("letter") :])
    return None if another and another[1] != last["letter"] else last["letter"]


def _matches(statement, text, letters):
    return list(re.finditer(statement.replace("ABCD", letters), text, re.IGNORECASE | re.MULTILINE))


def _line(text, letters):
    """A letter alone on the last line; or the only one with which lines begin (`C) 12 cm`)."""
    lines = [line.strip() for line in text.splitlines() if re.search(r"\w", line)]
    alone = re.compile(rf"[*_`$\s(\[]*([{letters}])[*_`$\s)\].:]*")
    if lines and (match := alone.fullmatch(lines[-1])):
        return match[1]
    starts = re.compile(rf"[*_`$\s]*(?:\(([{letters}])\)|([{letters}])[).:](?=\s|\*|$))|{alone.pattern}$")
    found = set()
    for line in lines:
        match = starts.match(line)
        if match and not re.match(VERDICT, line[match.end() :], re.IGNORECASE):
            found |= {match[match.lastindex], *_marked(line, letters)}
    return found.pop() if len(found) == 1 else None


def _own_text(said, letters, options):
    """The letter of the one option that equals what was said, as text or, if it is no prose, as mathematics."""
    if not options:
        return None
    plain = [_plain(option) for option in options]
    if plain.count(_plain(said)) == 1:
        return letters[plain.index(_plain(said))]
    if is_prose(normalise(said)):
        return None
    equal, undecided = [], None
    for x, option in zip(letters, options, strict=True):
        verdict = compare(said, option)
        if verdict in UNDECIDED:
            undecided = Undecided(verdict, f"comparing {said[:SPAN]!r} with option {x}")
        equal += [x] * (verdict == "equal")
    if undecided and not equal:
        raise undecided
    return equal[0] if len(equal) == 1 else None


def _announced_text(text, letters, options, boxed):
    """The letter of the option whose text follows the last "answer is", or is all of the last line.

    boxed: what was compared already, and is no option's text."""
    if not options:
        return None
    announced = re.findall(r"(?i)\banswer\b[*_]*\s*(?:is|:)[*_:\s]*(\S[^\n]*)", text)
    lines = [line for line in text.splitlines() if re.search(r"\w", line)]
    compared = {_plain(boxed or "")}
    for said in [line[:SPAN].strip("*_ ") for line in announced[-1:] + lines[-1:]]:
        plain = _plain(said)
        if plain not in compared and (found := _own_text(said, letters, options)):
            return found
        compared.add(plain)
        begins = [x for x, o in zip(letters, options, strict=True) if re.match(re.escape(_plain(o)) + r"\b", plain)]
        if announced and len(begins) == 1:
            return begins[0]
    return None


def _plain(text):
    return re.sub(r"\s+", " ", normalise(_unwrap(text)).casefold()).strip(" .*_$\"'")
