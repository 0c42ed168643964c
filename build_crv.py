"""CRV (§3.2): rate, rewrite and verify reasoning chains until they suit a small model, and make the pairs for CogPO.

    python build_crv.py --config configs/pocket/crv.yaml
    python build_crv.py --config configs/paper/crv_bespoke.yaml problems=data/mine.jsonl out=out/mine \\
        endpoints.teacher.base_url=http://gpu1:8000/v1 endpoints.teacher.model=my-model

Reads problems {"id", "problem", "answer", "reasoning"} and writes into `out`

    sft.jsonl        D_SFT*, what train_sft.py reads        pairs.jsonl     tagged pairs, what train_cogpo.py reads
    traces.jsonl     the whole life of every problem        rejected.jsonl  every problem not kept, and the reason
    report.json      counts, lengths, calls, tokens         journal.jsonl   every call; a killed run resumes from it
    report.html      the same for a person, with single problems to look at; needs no network
    sft_original, sft_easy, sft_medium, sft_hard, sft_c, sft_cr .jsonl      Tables 2, 5 and 6, from the same calls
"""

import asyncio
import hashlib
import itertools
import json
import tempfile
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import BinaryIO

from agents.batches import Batches
from agents.crv import run_problems
from agents.journal import Journal
from agents.keys import Config
from agents.limits import EndpointConfig, check_endpoints
from agents.measured import StudentCritic, find_levels
from agents.outputs import made_with, write_outputs
from agents.pool import open_endpoints
from agents.probe import Prober
from agents.prompts import load_prompts
from agents.report import Live, show
from agents.roles import Agents
from config import claim_output, run_cli
from data.ledger import holds_records
from data.records import numbered_records, write_jsonl
from data.render import problem_messages
from data.rows import iter_rows
from errors import UserError, read_json
from grading.programs import check_tests, isolation
from lock import locked
from progress import Progress, say

# what may change between a run and its resumption: no answer in the journal is asked for again because of it, but for
# the truncated ones under a higher max_tokens
FREE_ENDPOINT_KEYS = tuple({f.name for f in fields(EndpointConfig)} - {"model", "extra_body"})
FREE_KEYS = ("probe", "max_cost", "sampling.max_tokens", "student.max_tokens", "student.fits")
MEASURED = ("critic", "student")  # the agent that is nobody under that critic_mode


def main(cfg: Config) -> None:
    # all that can be wrong on paper, before anything is asked
    check_config(cfg)
    prompts = load_prompts(cfg.prompts_dir)
    source = check_problems(cfg.problems, cfg.limit)
    free = [f"endpoints.{name}.{key}" for name in cfg.endpoints for key in FREE_ENDPOINT_KEYS]
    out = Path(cfg.out)
    files = [out / name for name in ("journal.jsonl", "traces.jsonl")]
    with locked(out):
        begun = any(map(holds_records, files))  # else a corrected config fits any folder
        claim_output(cfg, out, free=[*free, *FREE_KEYS] if begun else [*vars(cfg)])
        journal = Journal(cfg.journal or out / "journal.jsonl")  # its lock is held until the outputs are written
        try:
            student = open_student(cfg, source["problems"]) if cfg.student.path else None
            made = made_with(cfg, prompts, student)

            # ask: problems end in any order, their traces are then written in the order of the input
            with tempfile.TemporaryFile(dir=out) as file:
                spool = Spool(file)
                asyncio.run(ask_all(cfg, prompts, student, source["problems"], journal, spool))
                (out / "report.json").unlink(missing_ok=True)  # while the outputs are rewritten, it is not finished
                write_jsonl(out / "traces.jsonl", spool.in_order())

            # everything else follows from the traces
            report = write_outputs(out, cfg, made, source)
        finally:
            journal.close()
    show(report, out)


def check_config(cfg: Config) -> None:
    """Raises UserError for keys that contradict each other."""
    for agent, names in vars(cfg.agents).items():
        for name in names:
            if name not in cfg.endpoints:
                known = ", ".join(cfg.endpoints) or "none"
                raise UserError(f"agents.{agent} is {name}, but there is no endpoints.{name} (there is: {known})")
    check_endpoints(cfg.endpoints, cfg.max_cost)
    if cfg.critic_mode == "student" and not cfg.student.path:
        raise UserError("critic_mode=student needs student.path, the folder or hub id of the student")
    if not cfg.student.hard_share + cfg.student.easy_share < 1:
        raise UserError("student.hard_share and student.easy_share are shares that leave some to be medium")
    if isinstance(cfg.instruction, dict) and "default" not in cfg.instruction:
        raise UserError("config key instruction needs a default, for problems of other domains")


def check_problems(path: str, limit: int | None) -> dict:
    """Returns {"problems": N, "sha256": of their ids and texts}; raises UserError on the first bad one, before anything
    is paid for."""
    total, digest, tested = 0, hashlib.sha256(), 0
    for where, row in numbered_records(path, "problem"):
        # every record is checked, those within the limit identify the run
        if row.get("tests"):
            check_tests(row["tests"], f"{where}: tests")
            tested += 1
        for key in ("solution", "domain"):
            if not isinstance(row.get(key), str | None):
                raise UserError(f"{where}: {key} must be a string, not {type(row[key]).__name__}")
        if limit is None or total < limit:
            digest.update(json.dumps(row, sort_keys=True).encode())
            total += 1
    if tested:
        say(f"problems with tests: {tested}; programs run under {isolation()}")
    return {"problems": total, "sha256": digest.hexdigest()}


def open_student(cfg: Config, count: int) -> StudentCritic:
    """Load the student, and measure the chains of the first `count` problems on it, which sets the thresholds."""
    from model.fit import Student  # here: most runs need no torch
    from settings import ModelConfig

    asked = cfg.student
    model = ModelConfig(asked.path, compute_dtype=asked.compute_dtype)
    student = Student(model, asked.fits or Path(cfg.out) / "fit.jsonl", asked.max_tokens)
    report = Path(cfg.out) / "report.json"
    before = read_json(report, "delete it", lambda r: r["made_with"].get("student")) if report.exists() else None
    if before and before["weights"] != student.weights:
        raise UserError(f"{cfg.out} was made with other weights of {asked.path}; set another output folder")

    def prompt(problem: dict) -> list[dict]:
        return problem_messages(problem, cfg.system, cfg.instruction)

    rows = itertools.islice((row for _, row in iter_rows(cfg.problems)), count)
    fits = student.all_fits(((prompt(row), row["reasoning"]) for row in rows), count)
    levels = find_levels(asked, fits)
    say(f"measured on {asked.path}: hard above RSR {levels.hard_rsr:.4g}, else easy above NLL {levels.easy_nll:.4g}")
    return StudentCritic(student.fits, levels, prompt, cfg.critic_mode == "student", student.weights)


async def ask_all(
    cfg: Config,
    prompts: dict[str, str],
    student: StudentCritic | None,
    count: int,
    journal: Journal,
    spool: "Spool",
) -> None:
    """Walk the first `count` problems through the agents; the spool gets their traces."""
    endpoints = []
    try:
        # the servers, and the agents behind which they stand
        prober = Prober(Path(cfg.out) / "probe.json", long=True, choice=True) if cfg.probe else None
        asked = {agent: names for agent, names in vars(cfg.agents).items() if (agent, cfg.critic_mode) != MEASURED}
        endpoints, bound = open_endpoints(cfg.endpoints, asked, journal.tally, prober, cfg.max_cost)
        for endpoint in endpoints:
            endpoint.batches = Batches(endpoint, journal) if endpoint.cfg.batch else None
        agents = Agents(bound, journal, prompts, cfg, student)

        # as many problems alive as there can be requests in flight, each read when its place becomes free
        say(f"{count} problems, {len(journal)} answers in {journal.path}")
        rows = (row for _, row in itertools.islice(iter_rows(cfg.problems), count))
        problems = enumerate(rows)  # a file that shrank is noticed by write_outputs
        window = min(count, sum(endpoint.cfg.concurrency for endpoint in endpoints))
        with Progress(count, "crv", unit="problems") as bar:
            live = Live(bar, count, endpoints, made_with(cfg, prompts, student)["prices"])

            def finished(index: int, trace: dict) -> None:
                spool.add(index, trace)
                live.finished(trace)

            await run_problems(problems, agents, window, finished)

        for pool in bound.values():
            pool.check_served()
    finally:
        for endpoint in endpoints:
            await endpoint.close()


class Spool:
    """Traces in a file in the order in which they finish; `in_order` reads them in the order of the input."""

    def __init__(self, file: BinaryIO):
        self.file, self.at = file, {}  # at: index of a problem -> offset of its line

    def add(self, index: int, trace: dict) -> None:
        self.at[index] = self.file.tell()
        self.file.write(json.dumps(trace, ensure_ascii=False).encode() + b"\n")

    def in_order(self) -> Iterator[dict]:
        for index in sorted(self.at):
            self.file.seek(self.at[index])
            yield json.loads(self.file.readline())


if __name__ == "__main__":
    run_cli(main, Config, __doc__)
