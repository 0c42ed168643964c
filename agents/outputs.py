"""From traces to what is trained on: sft.jsonl, pairs.jsonl, the studies' subsets, rejected.jsonl and the report.

Everything here is a function of traces.jsonl and the configuration alone, so it asks nobody and is paid for once.

Every record carries `provenance`, by which its chain can be traced to its calls. Its keys and types are the same in all
records and nothing is null ("" and 0 stand for "not by a call"): loaders that infer a schema from the first megabytes
(datasets, pyarrow) would refuse the file otherwise.
"""

import contextlib
import itertools
import json
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from agents import keys
from agents.journal import call_key, call_seed
from agents.measured import StudentCritic
from agents.report import render_report, sample
from agents.roles import LEVELS, VERDICTS
from agents.tally import Tally, cost
from config import run_cli
from data.pairs import make_pairs
from data.records import jsonl_writer, write_text
from data.render import boxed_solution, problem_messages, response_text
from data.rows import iter_rows
from errors import UserError, read_json
from grading.answers import final_answer
from values import FilePath

SAMPLES = 200  # problems that can be looked at in report.html


# --- how a problem and a chain become messages ---


def response(trace: dict, chain: str, cfg: keys.Config) -> str:
    """Returns a correct chain and the gold solution behind it."""
    return response_text(chain, _solution(trace), cfg.response_style)


def incorrect_response(trace: dict, cfg: keys.Config) -> str | None:
    """Returns r~ and what `rejected_answer` puts behind it; None without r~."""
    chain, solution = trace["incorrect"], None
    if chain is None:
        return None
    if cfg.rejected_answer == "gold":
        solution = _solution(trace)
    elif cfg.rejected_answer == "from_reasoning" and final_answer(chain) is not None:
        solution = boxed_solution(final_answer(chain))
    return response_text(chain, solution, cfg.response_style)


def _solution(trace):
    return trace.get("solution") or boxed_solution(trace["answer"])


# --- provenance: where a chain comes from ---


def made_with(cfg: keys.Config, prompts: dict[str, str], student: StudentCritic | None = None) -> dict:
    """Returns what all records of a run have in common: models and prices by agent, hashes of prompts by name,
    sampling, seed; the student on which chains are measured, and the thresholds."""
    bound = {agent: cfg.endpoints[names[0]] for agent, names in vars(cfg.agents).items()}  # all of them serve one model
    models = {agent: endpoint.model for agent, endpoint in bound.items()}
    measured = {}
    if student:
        measured["student"] = {"path": cfg.student.path, "weights": student.weights, **vars(student.levels)}
        models |= {"critic": f"{cfg.student.path}, measured"} if student.rates else {}
    return {
        "models": models,
        **measured,
        "prices": {agent: endpoint.prices() for agent, endpoint in bound.items()},
        "prompts": {name: call_key(text)[:16] for name, text in prompts.items()},
        "sampling": " ".join(f"{name}={value:g}" for name, value in cfg.sampling.options().items()),
        "seed": cfg.seed,
    }


def step_of(trace: dict, chain: str | None, incorrect: bool = False) -> dict | None:
    """Returns the step that wrote a chain, r* or (incorrect) r~, the try that was taken; None for no chain."""
    steps = [step for step in trace["steps"] if step["step"] == "rethinker" and step["text"] == chain is not None]
    return next((step for step in reversed(steps) if (step["mode"] == "incorrect") == incorrect), None)


def provenance(trace: dict, step: dict | None, made: dict) -> dict:
    """Returns where a chain comes from. step: the one that wrote it; None for r, which came with the problem.

    call: key of the journal line. attempts: how often it was asked until the reply could be used. votes: of Critic and
    Verifier on this chain; r~ gets none.
    """
    by, round = (f"rethinker_{step['mode']}", step["round"]) if step else ("input", 0)
    last = step["calls"][-1]["key"] if step else ""
    judged = [s for s in trace["steps"] if s["step"] != "rethinker" and s["round"] == round]
    votes = {label: n for s in judged for label, n in s["votes"].items() if by != "rethinker_incorrect"}
    return {
        "by": by,
        "model": made["models"]["rethinker"] if step else "",
        "prompt_hash": made["prompts"][by] if step else "",
        "sampling": made["sampling"] if step else "",
        "seed": call_seed(last) if step else 0,
        "call": last,
        "round": round,
        "attempts": len(step["calls"]) if step else 0,
        "votes": {label: votes.get(label, 0) for label in (*LEVELS, *VERDICTS)},
    }


# --- the records ---


def records(
    trace: dict, cfg: keys.Config, made: dict, chosen: dict[str, set[str] | None]
) -> Iterator[tuple[str, dict]]:
    """Yield (name of its file, record) for everything that follows from one trace. made: made_with's. chosen:
    level_sample's."""
    # what is trained on, D_SFT* = D_med ∪ D_easy* ∪ D_hard* (§3.2.3) and the mini-tasks; or why there is nothing
    if trace["outcome"] == "kept":
        yield "sft", sft_row(trace, step_of(trace, trace["rewritten"]), trace["origin"], cfg, made)
        for pair in pair_rows(trace, cfg, made):
            yield "pairs", pair
    else:
        shown = ("id", "outcome", "reason", "level", "problem", "answer", "reasoning")
        yield "rejected", {key: trace[key] for key in shown}

    # the studies: r as it came ("SFT" in Tables 2 and 6), and by the Critic's first verdict on it (Table 5)
    level = trace["level"]
    original = sft_row(trace, None, {"medium": "med", None: "unrated"}.get(level, level), cfg, made)
    yield "sft_original", original
    if level and (chosen[level] is None or trace["id"] in chosen[level]):
        yield f"sft_{level}", original

    # Table 6: c is r where it was rated medium; cr adds the first rewrite that changed anything, unverified
    if level == "medium":
        yield "sft_c", original
        yield "sft_cr", original
    else:
        rewrites = (s for s in trace["steps"] if s["step"] == "rethinker" and s["mode"] != "incorrect")
        step = next((s for s in rewrites if s["text"] not in (None, trace["reasoning"])), None)
        if step:
            yield "sft_cr", sft_row(trace, step, f"{level}*", cfg, made)


def sft_row(trace: dict, step: dict | None, origin: str, cfg: keys.Config, made: dict) -> dict:
    """Returns the record of a correct chain. step: the one that wrote it, None for r."""
    chain = step["text"] if step else trace["reasoning"]
    reply = {"role": "assistant", "content": response(trace, chain, cfg)}
    return {
        "id": trace["id"],
        "messages": [*problem_messages(trace, cfg.system, cfg.instruction), reply],
        "origin": origin,
        "rounds": step["round"] if step else 0,
        "problem": trace["problem"],
        "answer": trace["answer"],
        "reasoning": chain,
        "provenance": provenance(trace, step, made),
    }


def pair_rows(trace: dict, cfg: keys.Config, made: dict) -> list[dict]:
    """Returns the mini-tasks of CogPO (§3.3.2) from a kept trace, none from another. A rewritten medium chain stands in
    for its original, which did not hold."""
    if trace["outcome"] != "kept":
        return []
    # the texts
    step, medium = step_of(trace, trace["rewritten"]), trace["level"] == "medium"
    best = response(trace, step["text"] if step else trace["reasoning"], cfg)
    original = best if medium else response(trace, trace["reasoning"], cfg)
    pairs = make_pairs(
        trace["id"],
        problem_messages(trace, cfg.system, cfg.instruction),
        trace["level"],
        original,
        incorrect_response(trace, cfg),
        None if medium else best,
    )
    # where they come from
    best, original = provenance(trace, step, made), provenance(trace, None, made)
    worst = provenance(trace, step_of(trace, trace["incorrect"], incorrect=True), made)
    sides = {"small": (best, original), "medium": (original, worst), "large": (best, worst)}
    return [pair | {"provenance": dict(zip(("chosen", "rejected"), sides[pair["gap"]], strict=True))} for pair in pairs]


def level_sample(ids_by_level: dict[str, list[str]], size: int | str | None, seed: int) -> dict[str, set[str] | None]:
    """Returns {level: ids or None}: equally many ids of each level, drawn with `seed` (Table 5: 10,000). "min": as many
    as the smallest level has; None: all."""
    if size is None:
        return dict.fromkeys(LEVELS)
    size = min(len(ids) for ids in ids_by_level.values()) if size == "min" else size
    draw = {level: random.Random(f"{seed}/{level}") for level in LEVELS}
    return {level: set(draw[level].sample(ids, min(size, len(ids)))) for level, ids in ids_by_level.items()}


def write_outputs(out: Path, cfg: keys.Config, made: dict, source: dict) -> dict:
    """Write everything that follows from out/traces.jsonl, in its order. Returns the report.

    made: made_with. source: {"problems": N, "sha256": …}, for the report. Raises
    UserError unless there is one trace for each of the N problems.
    """

    def traces() -> Iterator[dict]:
        return (trace for _, trace in iter_rows(out / "traces.jsonl"))

    # first pass: count, and draw what is drawn
    tally = Tally()
    for trace in traces():
        tally.add(trace, pair_rows(trace, cfg, made))
    tally.check(source["problems"], out)
    report = {"input": source, "made_with": made} | tally.result()
    report["cost"] = cost(report["calls"], made["prices"])
    chosen = level_sample(tally.ids, cfg.level_size, cfg.seed)
    places, samples = set(sample(tally.strata, SAMPLES, cfg.seed)), []

    # second pass: all files at once, for the traces of a large run are tens of gigabytes
    names = ["sft", "pairs", "rejected", "sft_original", *(f"sft_{level}" for level in LEVELS), "sft_c"]
    names += ["sft_cr"] if cfg.stages != "c" else []  # nothing was rewritten then
    with contextlib.ExitStack() as stack:
        writers = {name: stack.enter_context(jsonl_writer(out / f"{name}.jsonl")) for name in names}
        for place, trace in enumerate(traces()):
            samples += [trace] if place in places else []
            for name, row in records(trace, cfg, made, chosen):
                if name in writers:
                    writers[name](row)
    write_text(out / "report.html", render_report(report, tally, samples, Path(cfg.problems).stem))
    write_text(out / "report.json", json.dumps(report, indent=2) + "\n")  # the last one: with it, a run is finished
    return report


# --- python -m agents.outputs: a finished run as a dataset repository ---

BATCH = 1000  # records in one Parquet row group
CARD = Path(__file__).with_name("card.md")


@dataclass
class Config:
    run: FilePath
    """Output folder of build_crv.py; its `parquet` gets sft.parquet, pairs.parquet and README.md, the dataset card."""


def main(cfg: Config) -> None:
    run = Path(cfg.run)
    if not (run / "report.json").exists():
        raise UserError(f"{run} is no finished run of build_crv.py")
    out = run / "parquet"
    out.mkdir(exist_ok=True)
    for name in ("sft", "pairs"):
        write_parquet(out / f"{name}.parquet", (row for _, row in iter_rows(run / f"{name}.jsonl")))
    write_text(out / "README.md", card(read_json(run / "report.json", "run build_crv.py there again")))
    print(f"wrote {', '.join(sorted(path.name for path in out.iterdir()))} into {out}")


def write_parquet(path: Path, rows: Iterable[dict]) -> None:
    """Write one row group per BATCH records; the schema is that of the first ones, which all records share."""
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


def card(report: dict) -> str:
    """Returns the README.md of a dataset repository: front matter that names the files, and what they are made of."""
    import jinja2

    return jinja2.Template(CARD.read_text(encoding="utf-8"), keep_trailing_newline=True).render(report)


if __name__ == "__main__":
    run_cli(main, Config, "A finished run as Parquet files with a dataset card: python -m agents.outputs run=out/crv")
