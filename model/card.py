"""The model card, README.md of an exported folder: what the model was made from and on, and what came of it.

    python -m model.card model=out/paper/cogpo_7b/model table=out/paper/table2/table.md

Every training writes it, from what stands in its output folder; the command does so with an evaluation's table in it.
A card that somebody else wrote, or has edited since, stays as it is.
"""

import hashlib
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import yaml
from jinja2 import Environment, StrictUndefined

from config import RESOLVED, run_cli
from data.records import GAPS, write_text
from data.rows import HUB_NAME
from errors import UserError, read_json
from model.files import EXPORTS, record_of
from model.plots import PANELS, read_curves
from values import FilePath, MaybePath

TEMPLATE = Path(__file__).with_name("card.md")
SIGNED = "<!-- written by model/card.py: {} -->\n"  # a digest of what stands above: unedited while it fits
WHOSE = {"": "", "eval/": "held out: "} | {  # prefixes of metrics, in words
    f"{prefix}{gap}/": f"{words}{gap} gap: " for prefix, words in (("", ""), ("eval/", "held out, ")) for gap in GAPS
}
SHOWN = ("loss", "margin", "accuracy", "beta")


@dataclass
class Config:
    model: FilePath
    """Exported folder: OUT/model of a training, or OUT/exports/step-N."""
    table: MaybePath = ""
    """table.md of an evaluation, to stand in the card."""


def main(cfg: Config) -> None:
    if cfg.table and not Path(cfg.table).is_file():
        raise UserError(f"no such file: {cfg.table}")
    table = Path(cfg.table).read_text(encoding="utf-8") if cfg.table else ""
    if not write_card(Path(cfg.model), table):
        raise UserError(f"{cfg.model}/README.md is not as model/card.py wrote it and stays; move it to have a new one")
    print(f"written: {cfg.model}/README.md")


def write_card(model: Path, table: str = "") -> bool:
    """Write README.md into an exported folder. False, and nothing is done, if one is there that is not from here.

    table: Markdown to stand in it. Raises UserError if the folder's run has not recorded how it was made.
    """
    card, text = model / "README.md", describe(model, table)
    if card.exists():
        there = card.read_text(encoding="utf-8")
        above = there[: there.rfind(SIGNED[:10])]
        if there != above + SIGNED.format(_digest(above)):
            return False
    write_text(card, text + SIGNED.format(_digest(text)))
    return True


def describe(model: Path, table: str = "") -> str:
    """Return the card of an exported folder, as `write_card`; model/card.md is its template."""
    # what its run has recorded, and the runs before it, back to what was not trained here
    run = model.parent.parent if model.parent.name == EXPORTS else model.parent
    if not (made := _made(run, record_of(model))):
        raise UserError(f"{model} is no export of a training here: {run / RESOLVED} or {record_of(model)} is missing")
    chain, start = [made], made["config"]["model.path"]
    while made := _made(Path(start).parent, record_of(Path(start))):
        chain.append(made)
        start = made["config"]["model.path"]

    # each metric that it has, first and last, with the number of updates of the weights that it was measured on
    curves, last = read_curves(run / "metrics.jsonl"), chain[0]["record"]["step"]
    metrics = {}
    for prefix, name in product(WHOSE, SHOWN):
        points = [point for point in zip(*curves.get(prefix + name, ((), ())), strict=True) if point[0] <= last]
        if points:
            metrics[WHOSE[prefix] + PANELS[name]] = points[0], points[-1]

    # the text; names of the hub go into the front matter too
    hub = {"base": _on_hub(start), "dataset": _on_hub(chain[0]["config"]["data.file"])}
    jinja = Environment(undefined=StrictUndefined, trim_blocks=True)
    template = jinja.from_string(TEMPLATE.read_text(encoding="utf-8"))
    return template.render(name=run.name, chain=chain, metrics=metrics, table=table, **hub)


def _made(run, record):
    """Read how a training made a model: {"config": …, "record": …, "script": its file}; None for other folders."""
    if not (run / RESOLVED).is_file() or not record.is_file():
        return None
    config = yaml.safe_load((run / RESOLVED).read_text(encoding="utf-8"))
    record = read_json(record, "restore it", lambda made: made | {"inputs": dict(made["inputs"])})
    script = next((name for name in record["inputs"] if name.startswith("train_")), None)
    return script and {"config": config, "record": record, "script": script}


def _on_hub(path):
    """Name the hub's repository that a path stands for; "" if it is none."""
    named = HUB_NAME.fullmatch(path)
    return f"{named[1]}/{named[2]}" if named and not Path(path).exists() else ""


def _digest(text):
    return hashlib.sha256(text.encode()).hexdigest()[:20]


if __name__ == "__main__":
    run_cli(main, Config, __doc__)
