"""The project's HTML pages: templates of this folder, filled with plain data; one file each, that needs no network.

Templates escape what they are given. What models wrote goes into the browser of single items instead: as compressed
data, which page.js turns into text nodes, never into markup. A content security policy lets nothing run but page.js.
"""

import base64
import gzip
import hashlib
import json
import random
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from pages.latex import MATHS, escape, formulas, mathml

HERE = Path(__file__).parent
TEMPLATES = Environment(
    loader=FileSystemLoader(HERE),
    autoescape=lambda name: name.endswith((".html", ".svg")),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
TEMPLATES.filters["words"] = lambda name: name.replace("_", " ")
TEMPLATES.filters["percent"] = lambda n, total: f"{100 * n / max(1, total):.1f}"
TEMPLATES.filters["latex"] = escape
TEMPLATES.filters["thousands"] = lambda cell: f"{cell:,}" if isinstance(cell, int) else cell


def render(template: str, browser: dict | None = None, **data) -> str:
    """Return a page, or a text beside one: a template of this folder with its data.

    browser: single items to look at: {"items": [item], "filters": {name: [value]}, "note": above them, unless the
    template has a block of that name, "search": what the search field says, "answer": what stands before an item's
    answer, "absent": what stands for no text, "both"?: all columns are shown, whatever is filtered}. A key with "?" may
    be left out. A template may set "sorts": {number of every column, - before it for the largest first: its words}.
    item: {"id", "text", "answer": str or None, "why": second line in the list, "columns", its value of a filter,
    "tone"?: a class of page.css, "chips"?: [(text, tone)], "absent"?, "prompt"?: messages as they were sent}.
    column: {"title": also the value of the filter "model", "note"?, "mark"?: for the list, "prompt"?: text of the
    prompt, "cards", and the numbers of "sorts"}.
    card, of which one at a time is shown: {"text"?: str or None, "thought"?, "around"?: what stood before, between and
    after thought and text, or "written"?: all of it, "label"?, "fact"?, "detail"?, "answer"?: str or None for none,
    "status": value of a filter, or instead "tone" and "chips"}.
    """
    style, script = ((HERE / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return TEMPLATES.get_template(template).render(
        **data,
        browser=browser,
        packed=browser and pack(browser),
        policy=f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'",
        style=Markup(style),
        script=Markup(script),
    )


def pack(browser: dict) -> str:
    """Return, as base64 of gzip of JSON, what page.js needs of `browser`, and as "maths" its formulas as MathML, each
    one once."""
    maths = {}
    for text in _texts(browser["items"]):
        for key, latex, display in formulas(text):
            if key not in maths:
                maths[key] = mathml(latex, display)
    data = {key: browser[key] for key in ("items", "answer", "absent")} | {"pattern": MATHS.pattern}
    data["maths"] = {key: value for key, value in maths.items() if value}  # the others are shown as they were written
    data["both"] = browser.get("both", False)
    return base64.b64encode(gzip.compress(json.dumps(data).encode(), mtime=0)).decode()


def _texts(items: list[dict]) -> Iterator[str]:
    """Everything in which formulas are looked for."""
    for item in items:
        cards = [card for column in item["columns"] for card in column["cards"]]
        yield from filter(None, [item["text"], *(card.get(key) for card in cards for key in ("thought", "text"))])
        answers = {item["answer"], *(card.get("answer") for card in cards)} - {None}
        yield from (f"${answer}$" for answer in answers if re.search(r"[\\^_]", answer))  # written without dollars


def in_turn(strata: dict[object, Iterable], seed: int) -> Iterator:
    """Yield all items, one from each stratum in turn, so that rare kinds come early. strata: {kind: items}; seeded."""
    queues = []
    for kind in sorted(strata, key=str):
        items = list(strata[kind])
        random.Random(f"{seed}/{kind}").shuffle(items)
        queues.append(items)
    while any(queues):
        yield from [queue.pop() for queue in queues if queue]
