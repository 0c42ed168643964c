"""The study at pocket size: every question of Tables 2, 5, 6 and Fig. 6 over several seeds and task mixtures.

    python -m pocket.study.study --config configs/pocket/study/micro.yaml       a micro student: 80 minutes on two cores
    python -m pocket.study.study --config configs/pocket/study/smollm2.yaml     SmolLM2-135M: for who has a GPU, or days

Every job of it is one of the project's own commands with a folder of its own and can be repeated by hand: its arguments
are in `out`/jobs/NAME.done, what it printed is in NAME.log. Killed at any point, run the same command to resume.

1. The student (`prepare`); for every mixture and seed its problems, and the CRV pass over them.
2. Tuning, on seeds and problems that the study does not see: every training set of the SFT stage and every preference
   loss has the same number of trials, and the mean validation accuracy over the tuning seeds decides.
3. The study, every seed with training problems, a CRV pass and an order of its own: eight SFT runs, four preference
   losses from the CRV+SFT checkpoint, and CogPO with its three β in every other order or with one of them for all gaps.
4. evaluate.py over the test problems, with a table for each table of the paper; answers.md (pocket/study/findings.py).
"""

import contextlib
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import yaml

from config import claim_output, run_cli
from errors import UserError
from pocket.study.design import (
    AS_MANY,
    LOSSES,
    METHODS,
    ORDERS,
    SETS,
    Replicate,
    StudyConfig,
    chosen_file,
    count_records,
    evaluation_folder,
    replicates_of,
)
from pocket.study.findings import read_answers, write_report
from pocket.study.jobs import Job, run_jobs
from progress import say

ADDRESS = "TEACHER-ADDRESS"  # of the scripted teacher, known only when a job starts
FREE = ("workers", "threads")  # keys that may change when a study is resumed

Settings = dict[str, float | list[float]]  # key=value of a training, e.g. {"optim.lr": 1e-3}


def main(cfg: StudyConfig) -> None:
    """Run the whole study, or what is left of it. Raises UserError for a config that would not be a fair comparison."""
    counts = {len(cfg.trials.get(loss, ())) for loss in LOSSES}
    if not cfg.trials.get("sft") or len(counts) > 1 or 0 in counts:
        raise UserError(f"trials: sft, and an equal number each of {', '.join(LOSSES)} are needed")
    if set(cfg.seeds) & set(cfg.tuning_seeds):
        raise UserError("seeds and tuning_seeds have one in common; settings must be chosen on other seeds")
    cfg = replace(cfg, out=str(Path(cfg.out)), student=str(Path(cfg.student)))  # as evaluate.py spells them
    claim_output(cfg, cfg.out, FREE)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: the jobs at work are waited for
    with teacher(cfg) as run:
        # the student, and the data of every replicate, those of the tuning too
        run("student", student_jobs(cfg))
        tuning = [Replicate(cfg, mixture, seed, tuning=True) for mixture in cfg.mixtures for seed in cfg.tuning_seeds]
        study = replicates_of(cfg)
        run("problems and CRV", [job for replicate in study + tuning for job in data_jobs(cfg, replicate)])

        # tuning: the SFT stage first, because the preference stage starts from its best checkpoint
        chosen = {mixture: {} for mixture in cfg.mixtures}  # {mixture: {method: settings}}
        for stage, methods in (("sft", SETS), ("prefer", LOSSES)):
            run(f"tuning, {stage}", [job for r in tuning for job in tuning_jobs(cfg, r, stage, chosen[r.mixture])])
            run(f"tuning, {stage}, validation", [tuning_evaluation(cfg, m, stage, methods) for m in cfg.mixtures])
            for mixture in cfg.mixtures:
                chosen[mixture] |= choose(cfg, mixture, stage, methods)

        # the study itself, and its answers
        run("study", [job for replicate in study for job in study_jobs(cfg, replicate, chosen[replicate.mixture])])
        run("evaluation", [study_evaluation(cfg, mixture, chosen[mixture]) for mixture in cfg.mixtures])
    write_report(cfg)
    say(f"written: {cfg.out}/answers.md; the tables: {cfg.out}/MIXTURE/report-study/table.md")


@contextlib.contextmanager
def teacher(cfg: StudyConfig) -> Iterator[Callable[[str, list[Job]], None]]:
    """Start the scripted teacher as a process of its own, which ends with the block. Yields run(title, jobs)."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    command = [sys.executable, "-m", "pocket.teacher", "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        while not listens(port):
            if process.poll() is not None:
                raise UserError("the scripted teacher did not start; see above")
            time.sleep(0.2)

        def with_address(argument):
            return argument.replace(ADDRESS, f"http://127.0.0.1:{port}/v1")

        yield lambda title, jobs: run_jobs(jobs, f"{cfg.out}/jobs", cfg.workers, cfg.threads, title, with_address)
    finally:
        process.terminate()
        process.wait()


def listens(port: int) -> bool:
    """Tell whether a server listens on a port of this machine."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


# --- the jobs ---


def student_jobs(cfg: StudyConfig) -> list[Job]:
    """List the commands of `prepare`, one after the other."""
    names = [f"student/{number}" for number in range(len(cfg.prepare))]
    return [
        Job(name, tuple(command.split()), tuple(names[:number]))
        for number, (name, command) in enumerate(zip(names, cfg.prepare, strict=True))
    ]


def data_jobs(cfg: StudyConfig, replicate: Replicate) -> list[Job]:
    """List what makes the data of a replicate: its problems, and CRV.

    The test problems of a tuning seed are the validation problems; it avoids every test problem of the study.
    """
    folder, study = replicate.folder, Replicate(cfg, replicate.mixture, cfg.seeds[0])
    arguments = [
        "-m", "pocket.problems", "--config", cfg.mixtures[replicate.mixture], f"out={folder}/data",
        f"seed={replicate.seed}", f"test_seed={cfg.test_seed + replicate.tuning}",
        f"train_problems={cfg.train_problems}",
        f"test_problems={cfg.validation_problems if replicate.tuning else cfg.test_problems}",
    ]  # fmt: skip
    needs = ()
    if replicate.tuning:
        arguments, needs = [*arguments, f"avoid=[{study.test_file}]"], (study.job("data"),)
    problems = Job(replicate.job("data"), tuple(arguments), needs)
    crv = (
        "build_crv.py", "--config", "configs/pocket/study/crv.yaml", f"problems={folder}/data/problems.jsonl",
        f"out={folder}/crv", f"endpoints.teacher.base_url={ADDRESS}", f"seed={replicate.seed}",
    )  # fmt: skip
    return [problems, Job(replicate.job("crv"), crv, (problems.name,))]


def sft_job(cfg: StudyConfig, replicate: Replicate, name: str, dataset: str, settings: Settings) -> Job:
    """Return a run of train_sft.py. name: of the run. dataset: one of SETS."""
    arguments = [
        "train_sft.py", "--config", cfg.sft, f"model.path={cfg.student}", f"out={replicate.output(name)}",
        f"data.file={replicate.records(SETS[dataset])}", f"seed={replicate.seed}", *key_values(settings),
    ]  # fmt: skip
    if dataset in AS_MANY:
        arguments.append(f"data.limit={count_records(replicate.records(AS_MANY[dataset]))}")
    return Job(replicate.job(name), tuple(arguments))


def preference_job(
    cfg: StudyConfig,
    replicate: Replicate,
    name: str,
    loss: str,
    settings: Settings,
    start: str,
    needs: Iterable[str] = (),
) -> Job:
    """Return a run of train_cogpo.py. start: name of the run whose checkpoint it starts from.

    Runs from one checkpoint share the reference's log-probs; the one that `needs` names computes them.
    """
    arguments = (
        "train_cogpo.py", "--config", cfg.prefer, f"model.path={replicate.model(start)}",
        f"out={replicate.output(name)}", f"data.file={replicate.records('pairs')}",
        f"reference_cache={replicate.output('reference')}", f"loss.name={loss}", f"seed={replicate.seed}",
        *key_values(settings),
    )  # fmt: skip
    return Job(replicate.job(name), arguments, tuple(replicate.job(need) for need in needs))


def key_values(settings: Settings) -> list[str]:
    """Write settings as arguments of a script."""
    return [f"{key}={json.dumps(value)}" for key, value in settings.items()]


def trials_of(cfg: StudyConfig, method: str) -> dict[str, Settings]:
    """Return {name of the run: its settings} of every trial of a method: a name of SETS or LOSSES."""
    trials = cfg.trials["sft" if method in SETS else method]
    return {f"{method}-{number}": settings for number, settings in enumerate(trials)}


def tuning_jobs(cfg: StudyConfig, replicate: Replicate, stage: str, chosen: dict[str, Settings]) -> list[Job]:
    """List the trials of a stage, "sft" or "prefer". chosen: the settings of the stage before."""
    if stage == "sft":
        return [
            sft_job(cfg, replicate, name, dataset, settings)
            for dataset in SETS
            for name, settings in trials_of(cfg, dataset).items()
        ]

    # all start from the best trial of CRV+SFT; the first one computes the reference's log-probs
    start = next(n for n, settings in trials_of(cfg, "crv_sft").items() if settings == chosen["crv_sft"])
    runs = [(name, loss, settings) for loss in LOSSES for name, settings in trials_of(cfg, loss).items()]
    first = runs[0][0]
    return [preference_job(cfg, replicate, *run, start, () if run[0] == first else (first,)) for run in runs]


def study_jobs(cfg: StudyConfig, replicate: Replicate, chosen: dict[str, Settings]) -> list[Job]:
    """List all trainings of a replicate of the study."""
    jobs = [sft_job(cfg, replicate, dataset, dataset, chosen[dataset]) for dataset in SETS]

    # CogPO first: it computes the reference's log-probs for the others, and its β are those of the orders
    runs = {name: (name, chosen[name]) for name in LOSSES}
    betas = dict(zip("sml", chosen["cogpo"]["loss.betas"], strict=True))
    for order in ORDERS:
        runs[f"cogpo_{order}"] = "cogpo", chosen["cogpo"] | {"loss.betas": [betas[letter] for letter in order]}
    for name, (loss, settings) in runs.items():
        needs = ("crv_sft",) if name == "cogpo" else ("cogpo",)
        jobs.append(preference_job(cfg, replicate, name, loss, settings, "crv_sft", needs))
    return jobs


# --- tuning and evaluation ---


def evaluation(
    cfg: StudyConfig, name: str, replicates: list[Replicate], models: dict[str, str], tables: dict, title: str
) -> Job:
    """Write the config of one evaluation of a mixture, and return the job.

    models: {name: path, with {run} in the place of a replicate's folder}.
    """
    mixture = replicates[0].mixture
    out = Path(evaluation_folder(cfg, mixture, name))
    out.parent.mkdir(parents=True, exist_ok=True)
    config = {
        "extends": str(Path(cfg.evaluate).resolve()),
        "title": title,
        "out": str(out),
        "report": str(out.with_name(f"report-{name}")),
        "runs": {f"seed {replicate.seed}": replicate.folder for replicate in replicates},
        "models": models,
        "tables": tables,
        "benchmarks": {mixture: {"file": replicates[0].test_file, "split": "task"}},
    }
    file = out.with_name(f"{name}.yaml")
    file.write_text(yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
    return Job(f"{mixture}/{name}", ("evaluate.py", "--config", str(file)))


def tuning_evaluation(cfg: StudyConfig, mixture: str, stage: str, methods: Iterable[str]) -> Job:
    """Return the job that evaluates all trials of a stage on the validation problems."""
    replicates = [Replicate(cfg, mixture, seed, tuning=True) for seed in cfg.tuning_seeds]
    names = [name for method in methods for name in trials_of(cfg, method)]
    models = {name: f"{{run}}/{replicates[0].inside(name)}/model" for name in names}
    return evaluation(cfg, f"tuning-{stage}", replicates, models, {}, f"Tuning on {mixture}: {stage}")


def choose(cfg: StudyConfig, mixture: str, stage: str, methods: Iterable[str]) -> dict[str, Settings]:
    """Choose each method's best trial by its mean validation accuracy over the tuning seeds; of equals the first.

    Returns {method: settings}, and writes all trials with their accuracies into a file beside the runs.
    """
    answers = read_answers(evaluation_folder(cfg, mixture, f"tuning-{stage}"))
    replicates = [Replicate(cfg, mixture, seed, tuning=True) for seed in cfg.tuning_seeds]
    found = {}
    for method in methods:
        trials, scores = trials_of(cfg, method), []
        for name in trials:
            right = [is_right for r in replicates for is_right in answers[r.model(name)].values()]
            scores.append(sum(right) / len(right))
        settings = list(trials.values())
        best = settings[scores.index(max(scores))]
        found[method] = {"chosen": best, "trials": settings, "validation": scores}
    Path(chosen_file(cfg, mixture, stage)).write_text(json.dumps(found, indent=1))
    return {method: choice["chosen"] for method, choice in found.items()}


def study_evaluation(cfg: StudyConfig, mixture: str, chosen: dict[str, Settings]) -> Job:
    """Return the job that evaluates the study on the test problems, with a table for each table of the paper."""
    betas = dict(zip("sml", chosen["cogpo"]["loss.betas"], strict=True))

    def shown(order):
        return "/".join(f"{betas[letter]:g}" for letter in order)

    models = {"base": cfg.student} | {name: f"{{run}}/{name}/model" for name in METHODS}
    figure6 = {
        "title": "β of the small/medium/large gap (the question of the paper's Fig. 6)",
        "columns": {shown("sml"): "cogpo"} | {shown(order): f"cogpo_{order}" for order in ORDERS},
        "against": {shown(order): shown("sml") for order in ORDERS},
    }
    tables = yaml.safe_load(Path("configs/pocket/study/tables.yaml").read_text(encoding="utf-8")) | {"figure6": figure6}
    replicates = [Replicate(cfg, mixture, seed) for seed in cfg.seeds]
    return evaluation(cfg, "study", replicates, models, tables, f"The pocket study, {mixture}")


if __name__ == "__main__":
    run_cli(main, StudyConfig, __doc__)
