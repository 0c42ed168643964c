"""Evaluation (§4): benchmarks -> generations -> grades -> the paper's tables and charts.

    python evaluate.py --config configs/pocket/eval.yaml                 runs what is missing, then renders
    python evaluate.py --config configs/pocket/eval.yaml --render-only   renders what is there, writes nothing else
    python evaluate.py --config configs/paper/eval.yaml --generate-only  on the machine with the models, then
    python evaluate.py --config configs/paper/eval.yaml --grade-only     on the one that may run programs

    vllm serve out/paper/cogpo_7b/model --served-model-name cogpo --generation-config vllm &
    python evaluate.py --config configs/paper/eval.yaml models.cogpo=endpoint:mine \\
        endpoints.mine.base_url=http://localhost:8000/v1 endpoints.mine.model=cogpo

(`--generation-config vllm`: else vLLM takes from the model's generation_config.json what a request does not say. The
client pins its repetition penalty, top_k and min_p, but max_new_tokens would still cut responses.)

Writes under `out`: generations.jsonl and grades.jsonl (append-only, keyed by content: prompt, sampling, model weights,
grader), and under `report`: table.md, table.html, table.tex, one chart a table, and samples.html, the responses
themselves. Killed at any point, run the same command to resume. Adding a model or a
table computes only what is new.

A cell reads `62.5 % (60/96) [52.5, 71.5]`: accuracy, right answers of all problems, 95 % interval.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from agents.limits import EndpointConfig, check_endpoints
from agents.probe import Prober
from config import RESOLVED, check_folder, check_output, claim_output, run_cli
from data.ledger import holds_records
from errors import UserError
from evals import assembly, benchmarks
from evals import samples as viewer
from evals.assembly import Evaluation, TableConfig, measured
from evals.benchmarks.common import BenchmarkConfig, Problem
from evals.grade import grade_keys, grade_missing, outdated
from evals.models import read_facts, resolve, write_facts
from evals.questions import Question, questions, settings_of, show_plan
from evals.served import draw
from evals.store import Ledgers
from evals.tables import write
from lock import locked
from progress import say
from values import Count, FilePath, MaybePath, NotNegative, Positive, PositiveShare, Seed, Template, Whole


@dataclass
class SamplingConfig:
    temperature: NotNegative | None = None
    """0: greedy; default: the protocol's (0 without one)"""
    top_p: PositiveShare | None = None
    """smallest set of tokens with this much probability; 1: all; default: the protocol's (1)"""
    top_k: Whole | None = None
    """sample from the K likeliest tokens; 0: all; default: the protocol's (0). Not every endpoint takes it"""
    seed: Seed = 0
    """of sampled responses; each response has its own random numbers, derived from this and from its key"""


@dataclass
class Config:
    out: FilePath
    """folder of the generations and grades"""
    models: Annotated[dict[str, FilePath], "filled"]
    """name: model folder in Hugging Face format, hub id, or endpoint:NAME of `endpoints`; {run} in it stands for the
    folders in `runs`. endpoint:NAME@label: the weights behind a server cannot be hashed, so a served model is known by
    its name there and this label; change the label when other weights are served under the same name"""
    benchmarks: dict[str, BenchmarkConfig]
    """name: where its problems are; the rows of every table"""
    benchmarks_dir: MaybePath = ""
    """folder of local copies, aime2024.jsonl and so on (the kinds' names), instead of the hub; a benchmark's own `file`
    goes before it"""
    allow_size: bool = False
    """continue when a benchmark does not have the number of problems in the paper's Table 7; the tables say so"""
    tables: dict[str, TableConfig] = field(default_factory=dict)
    """name: what it shows; default is one table with a column for every model; see configs/paper/table2.yaml"""
    runs: dict[str, FilePath] = field(default_factory=dict)
    """seed's name: the folder that replaces {run} in `models`; with several, a cell is the mean over them"""
    endpoints: dict[str, EndpointConfig] = field(default_factory=dict)
    """OpenAI-compatible endpoints by name, as in build_crv.py; the server's own chat template renders the prompt"""
    max_cost: Positive | None = None
    """Stop before all answers of endpoints together cost more than this, by their prices; null for no cap"""
    probe: bool = True
    """A few test questions to each endpoint before its first real one, remembered in probe.json; see build_crv.py.
    false: a template that opens the thought in the prompt is not recognised, so a thought that is cut before its end
    reads as an answer"""
    compare: list[str] = field(default_factory=list)
    """two models, the reference first: compare.html shows their responses side by side, what was gained and lost"""
    title: str = "Results"
    """heading of the HTML page"""
    report: MaybePath = ""
    """folder of table.md, table.html, table.tex and the charts; default is `out`"""
    notes: list[str] = field(default_factory=list)
    """lines shown under every table: what a reader must know about these numbers"""
    protocol: Literal["", "paper", "r1"] = ""
    """what the settings below are where they are left out (evals/benchmarks.yaml): paper, one greedy response of at
    most 32,768 tokens; r1, several at temperature 0.6. Empty: as paper"""
    system: str | None = None
    """system prompt; must be the one of training (build_crv's `system`). Default: the protocol's, none"""
    instruction: Template | None = None
    """template around the problem; must be the one of training (build_crv's `instruction`). It replaces what every
    benchmark asks for by itself, option letters and starter code too: for one benchmark set its own `instruction`.
    Default: each benchmark's own; {problem} for problems of your own files"""
    samples: Count | None = None
    """responses a problem; default: the protocol's (1). More may be asked for later: those that are there are kept"""
    max_new_tokens: Count | None = None
    """longest response; one that is cut here counts as truncated unless its answer is boxed already. Default: the
    protocol's (32768)"""
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    batch_size: Count = 48
    """responses generated together in this process; memory grows with it"""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """compute dtype; auto: as training's, bfloat16 on CUDA and, for wider models, on CPUs that multiply it natively"""
    chat_template_kwargs: dict = field(default_factory=dict)
    """what chat templates are given besides the messages, e.g. {enable_thinking: false}; must be the one of training. A
    template that does not read a key goes without it. For endpoints: in their extra_body"""
    plan: bool = False
    """only print how many responses and tokens this is, before anything is loaded (--plan)"""
    generate_only: bool = False
    """generate what is missing; grade and render nothing"""
    grade_only: bool = False
    """grade and render what is there; loads no model and asks no endpoint"""
    render_only: bool = False
    """render what is graded; loads no model, may look at a run that is under way"""


# What makes two generations comparable must not change within one output folder; everything else may.
FIXED = ("protocol", "system", "instruction", "max_new_tokens", "sampling", "dtype", "chat_template_kwargs")
FREE = tuple(set(Config.__dataclass_fields__) - set(FIXED))


def main(cfg: Config) -> None:
    """Generate and grade what is missing, then write the tables and pages. Raises UserError where that cannot be done,
    or was not done altogether."""
    # what the config asks for; nothing is loaded or written before it is known to be good
    tables, settings = check_config(cfg), settings_of(cfg)
    shown = [model for table in tables.values() for model in table.columns.values()] + cfg.compare
    if unused := [name for name in cfg.models if name not in shown]:
        say(f"not evaluated, because no table shows them: {', '.join(unused)}")
    if cfg.plan:
        return print(show_plan(cfg, tables, settings))
    generates = not (cfg.grade_only or cfg.render_only)
    problems = [] if cfg.render_only else load_problems(cfg, cfg.benchmarks)
    places = resolve(cfg.models, cfg.runs, shown, cfg.endpoints, offline=not generates, look=not cfg.render_only)
    distinct = dict.fromkeys(place for runs in places.values() for place in runs.values())

    # the output folder: of this configuration, and of this run alone
    out = Path(cfg.out)
    begun = any(map(holds_records, out.glob("generations*.jsonl")))  # else a corrected config fits any folder
    free = FREE if begun else tuple(Config.__dataclass_fields__)
    check_output(cfg, out, free)
    # a report in a folder that no run has claimed would make it one that a run refuses
    if cfg.render_only and not (out / RESOLVED).exists() and Path(cfg.report or out).is_relative_to(out):
        raise UserError(f"{out} holds no evaluation yet; run it without --render-only, or set report to another folder")
    with contextlib.nullcontext() if cfg.render_only else locked(out):
        # every response that the tables need, and which of them are there
        generations, grades, facts = Ledgers(out, "generations"), Ledgers(out, "grades"), read_facts(out)
        if cfg.render_only:  # a benchmark without responses has no cells: neither its file nor the hub is needed
            problems = load_problems(cfg, {record["benchmark"] for record in generations})
        asked = questions(cfg, distinct, problems, settings, facts["folders"])
        for path in dict.fromkeys(question.place.path for question in asked if question.key is None):
            say(f"no cells of {path}: {out}/models.json knows nothing of its weights")
        if not cfg.render_only:
            claim_output(cfg, out, free)
            write_facts(out, facts)

        # generate, grade, show: each takes up what the one before has appended
        unanswered = generate_missing(cfg, asked, generations, facts) if generates else []
        if not cfg.generate_only:
            keys = grade_keys(asked)
            if not cfg.render_only:
                grade_missing(asked, generations, grades, keys)
            elif count := outdated(keys, generations, grades):
                say(f"{count} responses have grades of another grader, which do not count; --grade-only grades anew")
            run = Evaluation(settings, places, problems, asked, generations, grades, keys)
            render(cfg, tables, run, facts)
    if unanswered:
        raise UserError(
            f"{len(unanswered)} of the questions got no answer (the last one: {unanswered[-1][1]}); every answer is "
            f"kept, run the same command again to resume"
        )


# --- what to do ---


def check_config(cfg: Config) -> dict[str, TableConfig]:
    """Return {name: TableConfig} of the tables to show. Raises UserError for what is wrong on paper."""
    check_endpoints(cfg.endpoints, cfg.max_cost)
    if batched := [name for name, endpoint in cfg.endpoints.items() if endpoint.batch]:
        raise UserError(f"config key endpoints.{batched[0]}.batch is for build_crv.py; evaluate.py asks one by one")
    check_folder(cfg.report or cfg.out)
    if cfg.compare and not (len(cfg.compare) == 2 == len(set(cfg.compare) & cfg.models.keys())):
        raise UserError(f"compare takes two of `models` ({', '.join(cfg.models)}), not {cfg.compare}")
    if sum((cfg.generate_only, cfg.grade_only, cfg.render_only)) > 1:
        raise UserError("only one of --generate-only, --grade-only and --render-only")
    tables = cfg.tables or {"table": TableConfig(cfg.title, {name: name for name in cfg.models})}
    if not cfg.benchmarks and not all(table.paper for table in tables.values()):  # those have the paper's rows
        raise UserError("config key benchmarks must not be empty")
    for name, table in tables.items():
        assembly.check(name, table, cfg.models)
    assembly.check_rows(tables, {name: benchmarks.row_of(name, b) for name, b in cfg.benchmarks.items()})
    return tables


def load_problems(cfg: Config, names: Collection[str]) -> list[Problem]:
    """Read the problems of these benchmarks. Raises UserError for one that cannot be read; with --render-only it has no
    cells."""
    problems = []
    for name in filter(names.__contains__, cfg.benchmarks):
        try:
            problems += benchmarks.load(name, cfg.benchmarks[name], cfg.benchmarks_dir, cfg.allow_size)
        except UserError as error:
            if not cfg.render_only:
                raise
            say(f"no cells of {name}: {error}")
    return problems


# --- doing it ---


def generate_missing(cfg: Config, asked: list[Question], generations: Ledgers, facts: dict) -> list:
    """Generate and append every response that is not there yet. Returns [(question, why)] of what nobody answered."""
    # what is not there, by model; two problems with one prompt share the response
    missing = {}  # place -> {key: Question}
    for question in asked:
        if question.key not in generations:
            missing.setdefault(question.place, {}).setdefault(question.key, question)

    def keep(question, made):
        problem = question.problem
        record = {
            "key": question.key,
            "model": question.place.path,
            "benchmark": problem.benchmark,
            "problem_id": problem.id,
            "sample": question.sample,
        }
        generations.append(record | made | problem.record, problem.private)

    # servers first: they are all asked at a time, the folders' models follow one by one
    served = [question for place, batch in missing.items() if place.endpoint for question in batch.values()]
    unanswered = ask_endpoints(cfg, served, generations, keep) if served else []
    for place, batch in missing.items():
        batch = {key: question for key, question in batch.items() if key not in generations}  # a copied folder
        if batch and not place.endpoint:
            tokens, seconds = generate_here(cfg, place.folder, batch, keep)
            before = facts["speed"].get(place.path, [0, 0.0])
            facts["speed"][place.path] = [before[0] + tokens, before[1] + seconds]
            write_facts(cfg.out, facts)
    return unanswered


def generate_here(cfg: Config, folder: str, batch: dict[str, Question], keep: Callable) -> tuple[int, float]:
    """Generate the responses to {key: Question} in this process. Returns (tokens, seconds)."""
    from model.generate import Sampling, respond  # torch and transformers: seconds that nothing else here needs

    asked = {
        key: (q.messages, Sampling(**q.settings.sampling, max_new_tokens=q.settings.max_new_tokens))
        for key, q in batch.items()
    }
    given = cfg.chat_template_kwargs
    return respond(folder, asked, lambda key, made: keep(batch[key], made), cfg.batch_size, cfg.dtype, given)


def ask_endpoints(cfg: Config, missing: list[Question], generations: Ledgers, keep: Callable) -> list:
    """Draw the missing responses of served models. Returns [(question, why)] of those that nobody answered."""
    counts = Counter(question.place.endpoint for question in missing)
    say("responses to sample: " + ", ".join(f"{count} from {name}" for name, count in counts.items()))
    prober = Prober(Path(cfg.out) / "probe.json", long=False) if cfg.probe else None
    return asyncio.run(draw(missing, cfg.endpoints, keep, generations, prober, cfg.max_cost))


# --- showing it ---


def render(cfg: Config, tables: dict[str, TableConfig], run: Evaluation, facts: dict) -> None:
    """Write the tables, the charts, and the responses themselves; print the tables."""
    folder = Path(cfg.report or cfg.out)
    made = {place.path: facts["speed"].get(place.path) for seeds in run.places.values() for place in seeds.values()}
    speeds = {path: f"{speed[0] / speed[1]:.0f} tokens/s" for path, speed in made.items() if speed}
    text = write(folder, cfg.title, measured(cfg, tables, run), speeds)
    say(f"written: {folder}/table.md, table.html, table.tex, table.png; generations and grades: {cfg.out}")
    # question by question, where there is an answer
    if items := viewer.collected(run):
        viewer.write_samples(folder / "samples.html", cfg.title, items)
        if cfg.compare:
            viewer.write_comparison(folder / "compare.html", cfg.title, items, *cfg.compare)
        say(f"written: {folder}/samples.html{', compare.html' if cfg.compare else ''}")
    print(text)  # last: whoever reads it may stop reading


if __name__ == "__main__":
    run_cli(main, Config, __doc__)
