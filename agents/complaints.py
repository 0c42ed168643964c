"""What a server that does not answer says: its words, what kind of failure they tell of, and the numbers in them.

The body decides before the HTTP status: gateways send a context overflow as 200 or 500, a rate limit as 400, a login
page as 200. A kind is one of

too_long     prompt and answer do not fit the model's window
filtered     a filter of contents will not take this question
refused      the request itself is wrong, or this question is
congested    too many requests: fewer at a time, later
locked       wrong key, no credit, unknown model or address: true of every question, if it stays so
passing      everything else: another try may fare better
"""

import html
import json
import re
from pathlib import Path

import yaml

SERVERS = yaml.safe_load(Path(__file__).with_name("servers.yaml").read_text(encoding="utf-8"))
# {kind: ways to say it}, and "prompt": what is said of the prompt beside an overflow
SAID = {kind: [re.compile(row, re.IGNORECASE) for row in rows] for kind, rows in SERVERS["said"].items()}
KINDS = ("filtered", "locked", "congested")  # that words tell; the first that holds decides
SPARE = 64  # tokens left free between what a server says and what is then asked for: templates are counted in odd ways
GUESSES = (4, 3, 2, 1)  # characters a token, where a server says only how long the prompt is at least

# a single request that is larger than a minute's tokens never gets through (Groq, OpenAI)
SHARE = re.compile(r"limit:? (\d+)\b.{0,40}?requested:? (\d+)", re.IGNORECASE)
WRONG_REQUEST = re.compile(r"(?i)invalid.?(?:request|argument|parameter)|bad.?request|validation|unsupported")

ECHO = re.compile(r"""['"]input['"]:.*""")  # such a complaint as text (vLLM): what follows is the request's
PAGE = re.compile(r"(?is)<title[^>]*>(.*?)</title>|<(?:script|style).*?</(?:script|style)>|<[^>]*>")


class CallError(Exception):
    """A call without an answer that can be used; its words hold neither key nor question.

    kind: as above; "" if it is to be found out. status: HTTP's, or what the body says in its place; 0 if nothing was
    reached. code: the server's own. wait: seconds that it asks to wait. late: the deadline was missed. fatal: no
    question to this server will fare better.
    """

    def __init__(
        self,
        words: str,
        status: int = 0,
        code: str = "",
        wait: float | None = None,
        late: bool = False,
        fatal: bool = False,
        kind: str = "",
    ):
        super().__init__(words)
        self.status, self.code, self.wait, self.late, self.fatal = status, code, wait, late, fatal
        self.kind = kind or kind_of(status, f"{code} {words}")

    @property
    def congested(self) -> bool:
        return self.kind == "congested"


def read_refusal(http_status: int, content: bytes, wait: float | None = None, key: str = "") -> CallError:
    """Returns the CallError in the body of a response that is no answer, whatever its status. key: never repeated."""
    body, status = parse(content.replace(key.encode(), b"***") if key else content), http_status
    said, codes = complaint(body)[:300], codes_in(body)
    # a number in the body that is an HTTP status goes before HTTP's, the kind of error only where HTTP says nothing
    numbers = [int(code) for code in codes if re.fullmatch(r"[45]\d\d", code)]
    code = " ".join(code for code in codes if not code.isdigit())
    if numbers:
        status = numbers[0]
    elif not 400 <= status < 500 and WRONG_REQUEST.search(code):
        status = 400
    where = f"HTTP {http_status}" if http_status >= 400 else "no chat completion"
    return CallError(f"{where}: {said or 'an empty body'}", status, code, wait)


def kind_of(status: int, words: str) -> str:
    """Returns the kind of a failure. words: codes and message of the body."""
    found = next((kind for kind in KINDS if any(row.search(words) for row in SAID[kind])), "")
    if found != "congested" and any(row.search(words) for row in SAID["too_long"]):
        return "too_long"
    if found == "congested" and (share := SHARE.search(words)) and int(share[2]) > int(share[1]):
        return "too_long"
    if found:
        return found
    for kind in ("congested", "locked"):
        if status in SERVERS["status"][kind]:
            return kind
    return "refused" if 400 <= status < 500 and status not in SERVERS["status"]["again"] else "passing"


def parse(content: bytes) -> object:
    """Returns the JSON in a body, or its text if it is none."""
    text = content.decode("utf-8-sig", "replace").strip()
    try:
        return json.loads(text)
    except (ValueError, RecursionError):  # no JSON, a number of thousands of digits, thousands of [
        return text


def complaint(body: object) -> str:
    """Returns the message of an error body in one line, without the question: servers built on pydantic hand that back
    as the `input` that they complain about. A web page is known by its title."""
    return ECHO.sub("…", valid(" ".join(_said(body).split())))


def _said(body: object) -> str:
    if isinstance(body, list):
        return "; ".join(filter(None, map(_said, body)))
    if isinstance(body, dict):
        if "msg" in body and isinstance(body.get("loc"), list | tuple):  # pydantic's
            return f"{'.'.join(map(str, body['loc']))}: {body['msg']}"
        words = next((said for key in SERVERS["words"] if (said := _said(body.get(key) or ""))), "")
        # OpenRouter: "Provider returned error", and under `raw` what that was
        raw = body["metadata"].get("raw") if isinstance(body.get("metadata"), dict) else None
        return f"{words} ({_said(raw)})" if raw else words or json.dumps(body, ensure_ascii=False) * bool(body)
    text = "" if body is True else str(body)
    if re.match(r"\s*<(?:!doctype|html)", text, re.IGNORECASE):
        title = next((match[1] for match in PAGE.finditer(text) if match[1]), "")
        return f"a web page, {html.unescape(title or PAGE.sub(' ', text)).strip()[:120]!r}"
    return text


def codes_in(body: object) -> list[str]:
    """Returns the codes and types of an error body as text, the innermost first."""
    if isinstance(body, list):
        return [code for part in body for code in codes_in(part)]
    if not isinstance(body, dict):
        return []
    inner = [code for key in SERVERS["words"] if isinstance(body.get(key), dict | list) for code in codes_in(body[key])]
    return inner + [
        str(body[key]) for key in SERVERS["codes"] if isinstance(body.get(key), str | int) and body[key] is not True
    ]


def valid(text: str) -> str:
    """Without halves of surrogate pairs, which JSON may hold ("\\ud83d") and UTF-8 may not."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def room_left(words: str, asked: int = 0, letters: int = 0, tries: int = 0) -> int | None:
    """Returns the tokens that an answer may have, from the words of a server that found a request too long.

    asked: max_tokens of that request. letters: characters of its prompt, from which its tokens are guessed where the
    server only says how many they are at least. tries: shortenings before this one, each leaves more free. None if the
    words tell of no room, and then nothing can be done but to give the question up.
    """
    if limit := answer_limit(words):
        return limit
    found = {}
    counted = "characters" not in words  # vLLM gives up counting the tokens of a huge prompt
    for row in SAID["too_long"] + SAID["prompt"] * counted:
        if match := row.search(words):
            found = {name: int(number) for name, number in match.groupdict().items() if number} | found
    window, prompt = found.get("window"), found.get("prompt", 0)
    if window is None or not (prompt or letters):
        return None
    # vLLM counts no further than to the first token that does not fit
    if not prompt or "at least" in words or prompt + asked == window + 1:
        prompt = max(prompt, letters // GUESSES[tries])
    room = window - prompt - SPARE * 4**tries
    return room if room > 0 else None


def answer_limit(words: str) -> int | None:
    """Returns the longest answer that may be asked for, whatever the prompt, if that is what a server says."""
    matches = (row.search(words) for row in SAID["too_long"] if "answer" in row.groupindex)
    return next((int(match["answer"]) - ("exclusive" in words) for match in matches if match), None)
