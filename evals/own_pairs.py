"""Pairs from a student's own samples: its wrong answers to the training problems as rejected, r* as chosen.

    python evaluate.py --config configs/paper/own_pairs.yaml        # samples and grades the training problems
    python -m evals.own_pairs eval=out/paper/own_pairs sft=out/paper/crv_bespoke/sft.jsonl \\
        model=out/paper/crv_sft_7b/model out=out/paper/own_pairs/pairs.jsonl

Only answers that ended and were graded wrong are used; their gap is large, their origin `…>own`. At the size of large
language models this is the best-supported kind of preference data; at pocket size it did not help (docs/train.md).
"""

from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

import yaml

from config import RESOLVED, run_cli
from data.records import GAPS, jsonl_writer, numbered_records
from errors import UserError
from evals.chains import BLANKS
from evals.models import SERVED, model_content, read_facts
from evals.store import responses
from model.files import model_folder
from progress import say
from values import Count, FilePath, Filled, MaybePath


@dataclass
class Config:
    eval: FilePath
    """`out` of the evaluation that sampled the training problems"""
    model: FilePath
    """the model, as its `models` has it: the student that these pairs will train"""
    sft: FilePath
    """sft.jsonl of the same problems: their r*"""
    out: FilePath
    """the file to write"""
    benchmark: Filled = "train"
    """the benchmark, as its `benchmarks` has it"""
    per_problem: Count = 1
    """wrong answers of one problem that are used, the first distinct ones"""
    pairs: MaybePath = ""
    """pairs.jsonl of CRV whose small and medium pairs are kept beside them; empty for none"""


def main(cfg: Config) -> None:
    """Write the pairs, and say how many problems had none, some or only wrong answers. Raises UserError if no answer is
    wrong, and for answers of other weights than the model has now."""
    weights = weights_of(cfg)
    wrong, sampled = answers(cfg)
    made = yaml.safe_load((Path(cfg.eval) / RESOLVED).read_text(encoding="utf-8"))
    sampling = " ".join(f"{k}={v}" for k, v in made.items() if k.startswith("sampling.") and v is not None)
    counts = Counter()
    with jsonl_writer(cfg.out) as write:
        for _, row in numbered_records(cfg.sft, "sft"):
            # what the student made of this problem
            mine, tries = wrong[row["id"]], sampled[row["id"]]
            counts["not sampled" if not tries else "none" if not mine else "all" if len(mine) == tries else "some"] += 1

            # the first distinct wrong ones against r*
            distinct = {record["text"]: record for record in reversed(mine)}
            for record in list(reversed(distinct.values()))[: cfg.per_problem]:
                source = {"model": cfg.model, "weights": weights, "sampling": sampling}
                write(own_pair(row, record) | {"own": source | {"sample": record["sample"], "call": record["key"]}})
                counts["pairs"] += 1
        if not counts["pairs"]:
            raise UserError(f"{cfg.eval} holds no wrong, finished answer of {cfg.model} to a problem of {cfg.sft}")
        nobody = {"model": "", "weights": "", "sampling": "", "sample": 0, "call": ""}  # the same keys in all records
        for _, row in numbered_records(cfg.pairs, "pair") if cfg.pairs else ():
            if row["gap"] != "large":
                write({key: value for key, value in row.items() if key != "provenance"} | {"own": nobody})
                counts["kept"] += 1
    shown = ", ".join(f"{counts[kind]} {kind}" for kind in ("none", "some", "all", "not sampled"))
    say(f"problems by how many of their answers are finished and wrong: {shown}")
    say(f"wrote {cfg.out}: {counts['pairs']} own pairs, {counts['kept']} of CRV's small and medium ones")


def weights_of(cfg: Config) -> str:
    """Return the digest of the model's folder; of a served model its label, which is that in the recipes. Raises
    UserError unless it is what was evaluated."""
    if cfg.model.startswith(SERVED):
        return cfg.model.partition("@")[2]
    known = read_facts(cfg.eval)["folders"]
    evaluated = known.get(str(Path(cfg.model)), [None, None])[1]
    folder = model_folder(cfg.model, offline=True)
    if evaluated is None or folder is None:
        raise UserError(f"{cfg.eval} knows no model folder {cfg.model}; it has {', '.join(known) or 'none'}")
    if model_content(str(folder), dict(known), cfg.model) != evaluated:
        raise UserError(f"{cfg.model} holds other weights than those that {cfg.eval} sampled; evaluate it again")
    return evaluated


def answers(cfg: Config) -> tuple[dict[str, list[dict]], Counter]:
    """Return ({problem id: generations that ended and are wrong, by sample}, Counter of generations by problem id)."""
    wrong, sampled = defaultdict(list), Counter()
    for record, status in responses(cfg.eval, cfg.model, cfg.benchmark):
        sampled[record["problem_id"]] += 1
        if status == "wrong" and record["finish_reason"] == "stop":
            wrong[record["problem_id"]].append(record)
    for records in wrong.values():
        records.sort(key=lambda record: record["sample"])
    return wrong, sampled


def own_pair(row: dict, record: dict) -> dict:
    """Return the pair of an sft record's r* and a generation."""
    *prompt, reply = row["messages"]
    return {
        "id": f"{row['id']}/own{record['sample']}",
        "problem_id": row["id"],
        "prompt": prompt,
        "chosen": [reply],
        "rejected": [{"role": "assistant", "content": record["text"].translate(BLANKS).strip()}],
        "gap": GAPS[-1],
        "origin": f"{row.get('origin', 'sft')}>own",
    }


if __name__ == "__main__":
    run_cli(main, Config, __doc__)
