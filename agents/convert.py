"""A finished run as a dataset repository: Parquet files with a dataset card.

    python -m agents.convert run=out/crv         # sft.parquet, pairs.parquet and README.md in out/crv/parquet

sft.jsonl and pairs.jsonl themselves open in datasets.load_dataset("json", data_files=…) and in trainers that take
conversational data; docs/interchange.md has the rest.
"""

import itertools
import json
from dataclasses import dataclass
from pathlib import Path

from data.records import GAPS, iter_jsonl, write_text
from errors import UserError

BATCH = 1000  # records in one Parquet row group


@dataclass
class Config:
    run: str
    """Output folder of build_crv.py."""
    out: str = ""
    """Folder for the Parquet files and their card; empty for `parquet` in `run`."""


def main(cfg):
    run = Path(cfg.run)
    if not (run / "report.json").exists():
        raise UserError(f"{run} is no finished run of build_crv.py")
    out = Path(cfg.out) if cfg.out else run / "parquet"
    out.mkdir(parents=True, exist_ok=True)
    for name in ("sft", "pairs"):
        write_parquet(out / f"{name}.parquet", (row for _, row in iter_jsonl(run / f"{name}.jsonl")))
    write_text(out / "README.md", card(json.loads((run / "report.json").read_text())))
    print(f"wrote {', '.join(sorted(path.name for path in out.iterdir()))} into {out}")


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


if __name__ == "__main__":
    from config import run_cli

    run_cli(main, Config, __doc__)
