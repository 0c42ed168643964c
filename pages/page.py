"""What the project's HTML pages share: one file each, that needs no network, no server and no other file.

A page is a template with [[slots]]. What models wrote is data in it: compressed, and turned into text nodes by page.js,
never into markup. A content security policy lets nothing run but the page's own script.
"""

import base64
import gzip
import hashlib
import html
import json
import random
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from pages.latex import MATHS, formulas, mathml

HERE = Path(__file__).parent
TEMPLATES = Environment(
    loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
)
TEMPLATES.filters["thousands"] = lambda cell: f"{cell:,}" if isinstance(cell, int) else cell

# the list of single items, with its steps, and the place where one is shown; page.js fills them
BROWSER = """<div class="browser"><div>
<div class="steps"><button id="previous" title="key k">previous</button>
<button id="next" title="key j">next</button></div>
<p class="soft" id="count"></p><div id="list"></div>
</div><div id="detail"></div></div>"""


def render(template: str, **data) -> str:
    """A page without a script: a template of this folder, which escapes the data that it is given."""
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    style = Markup((HERE / "page.css").read_text(encoding="utf-8"))
    return TEMPLATES.get_template(template).render(**data, policy=policy, style=style)


def fill(template, script, slots):
    """The page, a str. template, script: files of this page. slots: {name: HTML}; page.css and page.js go before."""
    here = Path(__file__).parent
    script = (here / "page.js").read_text(encoding="utf-8") + script.read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    slots = slots | {
        "policy": f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'",
        "style": (here / "page.css").read_text(encoding="utf-8"),
        "script": script,
        "browser": BROWSER,
    }
    head, *rest = template.read_text(encoding="utf-8").split("[[")  # once: what is filled in is not searched again
    return head + "".join(slots[name] + text for name, text in (piece.split("]]", 1) for piece in rest))


def pack(data, texts):
    """base64 of gzip of `data` (a dict for JSON) with "maths", the formulas of `texts`: one that many share is there
    once, and what cannot be converted is not there."""
    maths = {}
    for text in texts:
        for key, latex, display in formulas(text):
            if key not in maths:
                maths[key] = mathml(latex, display)
    data = data | {"maths": {key: value for key, value in maths.items() if value}, "pattern": MATHS.pattern}
    return base64.b64encode(gzip.compress(json.dumps(data).encode(), mtime=0)).decode()


def in_turn(strata, seed):
    """All items, one from each stratum in turn, so that rare kinds come early. strata: {kind: items}; seeded."""
    queues = []
    for kind in sorted(strata, key=str):
        items = list(strata[kind])
        random.Random(f"{seed}/{kind}").shuffle(items)
        queues.append(items)
    while any(queues):
        yield from [queue.pop() for queue in queues if queue]


def table(heads, rows):
    """heads: a leading > marks a column of numbers. rows: lists of <td>."""
    cells = "".join(f'<th class="n">{h[1:]}</th>' if h.startswith(">") else f"<th>{h}</th>" for h in heads)
    body = "".join(f"<tr>{''.join(row)}</tr>" for row in rows)
    return f"<table><tr>{cells}</tr>{body}</table>"


def cell(text):
    return f"<td>{html.escape(str(text))}</td>"


def number(value):
    return f'<td class="n">{f"{value:,}" if isinstance(value, int) else html.escape(str(value))}</td>'
