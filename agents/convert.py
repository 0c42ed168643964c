"""The records of a run in other projects' formats.

    python -m agents.convert run=out/crv to=parquet         # sft.parquet, pairs.parquet and a dataset card
    python -m agents.convert run=out/crv to=llamafactory    # ShareGPT files and dataset_info.json
    python -m agents.convert run=out/crv to=easydistill     # {instruction, output} and {prompt, chosen, rejected, beta}

sft.jsonl and pairs.jsonl themselves open in datasets.load_dataset("json", data_files=…) and in trainers that take
conversational data. Files are streamed; each is written whole or not at all.
"""

import itertools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from data.records import GAPS, iter_jsonl, write_jsonl, write_text
from errors import UserError

BATCH = 1000  # records in one Parquet row group


@dataclass
class Config:
    run: str
    """Output folder of build_crv.py or agents.merge."""
    to: Literal["parquet", "llamafactory", "easydistill"]
    """Format."""
    out: str = ""
    """Output folder; empty for a folder named after the format, in `run`."""
    betas: tuple[float, float, float] = (0.1, 0.2, 0.5)
    """EasyDistill's `beta` for small, medium and large gaps (Table 8)."""


def main(cfg):
    run = Path(cfg.run)
    if not (run / "report.json").exists():
        raise UserError(f"{run} is no finished run of build_crv.py")
    out = Path(cfg.out) if cfg.out else run / cfg.to
    out.mkdir(parents=True, exist_ok=True)
    sft = (row for _, row in iter_jsonl(run / "sft.jsonl"))
    pairs = (row for _, row in iter_jsonl(run / "pairs.jsonl"))
    if cfg.to == "parquet":
        write_parquet(out / "sft.parquet", sft)
        write_parquet(out / "pairs.parquet", pairs)
        write_text(out / "README.md", card(json.loads((run / "report.json").read_text())))
    elif cfg.to == "llamafactory":
        write_jsonl(out / "crv_sft.jsonl", map(sharegpt_sft, sft))
        write_jsonl(out / "crv_pairs.jsonl", map(sharegpt_pair, pairs))
        write_text(out / "dataset_info.json", json.dumps(DATASET_INFO, indent=2) + "\n")
    else:
        beta = dict(zip(GAPS, cfg.betas, strict=True))
        write_jsonl(out / "sft.jsonl", map(easydistill_sft, sft))
        write_jsonl(out / "cogpo.jsonl", (easydistill_pair(row, beta) for row in pairs))
    print(f"wrote {', '.join(sorted(path.name for path in out.iterdir()))} into {out}")


# --- Parquet, with a dataset card ---


def write_parquet(path, rows):
    """One row group per BATCH records; the schema is that of the first ones, which all records share."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    partial, writer, rows = path.with_name(path.name + ".tmp"), None, iter(rows)
    while batch := list(itertools.islice(rows, BATCH)):
        table = pa.Table.from_pylist(batch, schema=writer and writer.schema)
        writer = writer or pq.ParquetWriter(partial, table.schema, compression="zstd")
        writer.write_table(table)
    if writer is not None:  # a run that kept nothing has no file
        writer.close()
        partial.replace(path)


def card(report):
    """README.md of a dataset repository: front matter that names the files, and what the data is made of."""
    problems, pairs, made = report["problems"], report["pairs"], report["made_with"]
    size = problems["kept"]
    category = next(name for most, name in SIZES if size < most)
    files = {"sft": problems["kept"], "pairs": sum(pairs.values())}
    configs = "".join(
        f"- config_name: {name}\n  data_files: {name}.parquet\n" + "  default: true\n" * (name == "sft")
        for name, count in files.items()
        if count
    )
    ratios = "\n".join(
        f"| {gap} | {pairs[gap]} | {report['length_ratio'][gap].get('chosen_over_rejected', '–')} |" for gap in GAPS
    )
    models = "\n".join(f"- {agent}: {model}" for agent, model in made["models"].items())
    origins = ", ".join(f"{count} {origin}" for origin, count in report["kept_by_origin"].items())
    return f"""---
pretty_name: CRV reasoning chains and CogPO pairs
task_categories:
- text-generation
tags:
- reasoning
- preference
- arxiv:2504.09802
size_categories:
- {category}
configs:
{configs}---

# CRV reasoning chains and CogPO pairs

Made with the CRV system of *Enhancing Reasoning Abilities of Small LLMs with Cognitive Alignment* (arXiv 2504.09802):
agents rate chains of thought, rewrite what is too terse or too convoluted for a small model, and verify the rewrites.

`sft`: {size} chains that suit a small model, of {problems["input"]} problems ({origins}).
`pairs`: preference pairs whose gap (small, medium, large) decides β in CogPO.

| gap | pairs | length of chosen / rejected |
|---|---|---|
{ratios}

Agents ({made["sampling"]}):
{models}

`provenance` names the model, prompt, sampling, seed, votes and call behind every chain; `by: input` marks the source
dataset's own. The licence and the terms of the source dataset and of the models above apply.
"""


SIZES = [(1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"),
         (10_000_000, "1M<n<10M")]  # fmt: skip


# --- LLaMA-Factory: ShareGPT ---

TAGS = {"role_tag": "from", "content_tag": "value", "user_tag": "human", "assistant_tag": "gpt"}
COLUMNS = {"messages": "conversations", "system": "system"}
DATASET_INFO = {
    "crv_sft": {"file_name": "crv_sft.jsonl", "formatting": "sharegpt", "columns": COLUMNS, "tags": TAGS},
    "crv_pairs": {
        "file_name": "crv_pairs.jsonl",
        "formatting": "sharegpt",
        "ranking": True,
        "columns": COLUMNS | {"chosen": "chosen", "rejected": "rejected"},
        "tags": TAGS,
    },
}
SPEAKERS = {"user": "human", "assistant": "gpt"}


def sharegpt_sft(row):
    return {"id": row["id"], **_sharegpt(row["messages"])}


def sharegpt_pair(row):
    chosen, rejected = ({"from": "gpt", "value": row[side][0]["content"]} for side in ("chosen", "rejected"))
    return {"id": row["id"], **_sharegpt(row["prompt"]), "chosen": chosen, "rejected": rejected, "gap": row["gap"]}


def _sharegpt(messages):
    system, turns = _split(messages)
    return {"conversations": [{"from": SPEAKERS[m["role"]], "value": m["content"]} for m in turns], "system": system}


def _split(messages):
    """(system prompt or "", the other messages)"""
    first = messages[0]
    return (first["content"], messages[1:]) if first["role"] == "system" else ("", messages)


# --- EasyDistill: plain strings ---


def easydistill_sft(row):
    *prompt, reply = row["messages"]
    return {"instruction": _plain(prompt), "output": reply["content"]}


def easydistill_pair(row, beta):
    """beta: {gap: value}."""
    sides = {side: row[side][0]["content"] for side in ("chosen", "rejected")}
    return {"prompt": _plain(row["prompt"]), **sides, "beta": beta[row["gap"]]}


def _plain(messages):
    return "\n\n".join(message["content"] for message in messages)


if __name__ == "__main__":
    from config import run_cli

    run_cli(main, Config, __doc__)
