"""Chains that models wrote in an evaluation -> problem records, the input of build_crv.py (Table 1 rates such chains).

    python -m evals.chains eval=out/paper/chains benchmark=MATH-500 \\
        model=deepseek-ai/DeepSeek-R1-Distill-Qwen-7B out=problems/math500_chains_7b.jsonl

`reasoning` is the thought, or the whole response where there is none; right and wrong ones alike.
"""

from dataclasses import dataclass, field

from config import run_cli
from data.records import ESCAPES, write_jsonl
from errors import UserError
from evals import benchmarks
from evals.benchmarks.common import BenchmarkConfig
from evals.store import responses
from grading.extraction import split_thought
from progress import say
from values import FilePath, Filled, MaybePath

# a model's noise; in problem records they would stand for damaged LaTeX
BLANKS = dict.fromkeys(map(ord, ESCAPES), " ")


@dataclass
class Config:
    eval: FilePath
    """`out` of the evaluation"""
    model: FilePath
    """the model, as its `models` has it"""
    benchmark: Filled
    """the benchmark, as its `benchmarks` has it"""
    out: FilePath
    """the file to write"""
    source: BenchmarkConfig = field(default_factory=BenchmarkConfig)
    """where the benchmark's problems are, as there"""
    benchmarks_dir: MaybePath = ""
    """as there"""
    allow_size: bool = False
    """as there"""


def main(cfg: Config) -> None:
    """Write the chains. Raises UserError where there are none, and for a benchmark that must not be written."""
    problems = {p.id: p for p in benchmarks.load(cfg.benchmark, cfg.source, cfg.benchmarks_dir, cfg.allow_size)}
    if any(problem.private for problem in problems.values()):
        raise UserError(f"{cfg.benchmark} must not appear in plain text; no file of its problems is written")
    # the first sample of every problem
    first = (
        record for record, _ in responses(cfg.eval, cfg.model, cfg.benchmark, graded=False) if not record["sample"]
    )
    found = {record["problem_id"]: thought(record["text"]).translate(BLANKS) for record in first}
    rows = [
        {"id": id, "problem": problem.question, "answer": problem.gold, "reasoning": found[id]}
        for id, problem in problems.items()
        if found.get(id)
    ]
    if not rows:
        raise UserError(f"{cfg.eval} holds no responses of {cfg.model} to {cfg.benchmark}; run evaluate.py first")
    write_jsonl(cfg.out, rows)
    say(f"wrote {cfg.out}: {len(rows)} chains for {len(problems)} problems")


def thought(text: str) -> str:
    """Return the thought of a response without its tags; all of a response that has none."""
    thought, said = split_thought(text)
    return thought or (said or "").strip()


if __name__ == "__main__":
    run_cli(main, Config, __doc__)
