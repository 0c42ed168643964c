"""A study at pocket size: a question of the paper over several seeds and task mixtures, as its config says.

    python -m pocket.study.study --config configs/pocket/study/sft.yaml           Tables 5 and 6
    python -m pocket.study.study --config configs/pocket/study/preference.yaml    Table 2, more SFT beside every loss
    python -m pocket.study.study --config configs/pocket/study/orders.yaml        Fig. 6
    python -m pocket.study.study --config configs/pocket/study/smollm2.yaml       Table 2 on SmolLM2-135M: with a GPU

Every job of it is one of the project's own commands with a folder of its own and can be repeated by hand: its arguments
are in `out`/jobs/NAME.done, what it printed is in NAME.log. Killed at any point, run the same command to resume; with
more seeds or columns it adds to what is there, and studies with one `out` share what they have in common.

1. The student (`prepare`); for every mixture and seed its problems, and the CRV pass over them.
2. Tuning, on seeds and problems that the study does not see: the mean validation accuracy over the tuning seeds decides
   between the trials of a column.
3. The study: every column for every seed, which has training problems, a CRV pass and an order of its own.
4. evaluate.py over the test problems, with the tables of the config; `out`/NAME.md (pocket/study/findings.py).
"""

import contextlib
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import yaml

from config import run_cli
from data.records import write_text
from errors import UserError
from evals.store import key_of
from pocket.study.design import (
    PAIRS,
    Replicate,
    Settings,
    StudyConfig,
    check,
    chosen_file,
    count_records,
    evaluation_folder,
    replicates_of,
    trials_of,
)
from pocket.study.findings import read_answers, write_report
from pocket.study.jobs import Job, run_jobs
from progress import say

ADDRESS = "TEACHER-ADDRESS"  # of the scripted teacher, known only when a job starts

Run = Callable[[str, list[Job]], None]  # run(title, jobs)


def main(cfg: StudyConfig, more: Callable[[StudyConfig, Run], None] = lambda cfg, run: None) -> None:
    """Run the whole study, or what is left of it. more: what a study of its own kind does once the CRV passes are
    there. Raises UserError for a config that would not be a fair comparison."""
    check(cfg)
    cfg = replace(cfg, out=str(Path(cfg.out)), student=str(Path(cfg.student)))  # as evaluate.py spells them
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: the jobs at work are waited for
    with teacher(cfg) as run:
        # the student, the data of every replicate, and the settings
        run("student", student_jobs(cfg))
        study = replicates_of(cfg)
        run("problems and CRV", [job for replicate in study for job in data_jobs(cfg, replicate)])
        more(cfg, run)
        chosen = tune(cfg, run)

        # the study itself, and its answers
        run("study", [job for r in study for job in study_jobs(cfg, r, chosen[r.mixture])])
        run("evaluation", [job for mixture in cfg.mixtures for job in study_evaluations(cfg, mixture)])
    write_report(cfg)
    say(f"written: {cfg.out}/{cfg.name}.md; the tables: {cfg.out}/MIXTURE/report-{cfg.name}/table.md")


@contextlib.contextmanager
def teacher(cfg: StudyConfig) -> Iterator[Run]:
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
    if replicate.tuning:
        arguments.append(f"avoid=[{study.test_file}]")
    problems = Job(replicate.job("data"), tuple(arguments))
    crv = (
        "build_crv.py", "--config", cfg.crv, f"problems={folder}/data/problems.jsonl",
        f"out={folder}/crv", f"endpoints.teacher.base_url={ADDRESS}", f"seed={replicate.seed}",
    )  # fmt: skip
    return [problems, Job(replicate.job("crv"), crv, (problems.name,))]


def training_job(
    cfg: StudyConfig, replicate: Replicate, column: str, run: str, start: str, settings: Settings, needs: list[str]
) -> Job:
    """Return the training of a column. run: its name. start: that of the run it starts from, or a model folder.
    settings: the chosen ones. needs: runs that come before."""
    c = cfg.columns[column]
    script, config = ("train_cogpo.py", cfg.prefer) if c.data == PAIRS else ("train_sft.py", cfg.sft)
    settings = c.settings | settings
    if c.tokens_of:
        settings["epochs"] = equal_epochs(cfg, replicate.records(c.tokens_of), replicate.records(c.data))
    if c.limit:
        settings["data.limit"] = count_records(replicate.records(c.limit))
    arguments = [
        script, "--config", config, f"model.path={start if '/' in start else replicate.model(start)}",
        f"out={replicate.output(run)}", f"data.file={replicate.records(c.data)}", f"seed={replicate.seed}",
        *(f"{key}={json.dumps(value)}" for key, value in settings.items()),
    ]  # fmt: skip
    if c.data == PAIRS:
        arguments.append(f"reference_cache={replicate.output('reference')}")
    return Job(replicate.job(run), tuple(arguments), tuple(replicate.job(need) for need in needs))


def equal_epochs(cfg: StudyConfig, pairs: str, file: str) -> int:
    """Return how many epochs of SFT on a file train as many response tokens as its pairs have, or just fewer: every
    response of the pairs counts once, as train_cogpo.py runs it once."""
    from data.dataset import load_pairs, load_sft  # here, so that --help answers at once
    from data.render import Renderer
    from model.load import load_tokenizer
    from settings import DataConfig

    renderer = Renderer(load_tokenizer(cfg.student))
    examples = load_pairs(DataConfig(pairs), renderer, True), load_sft(DataConfig(file), renderer)
    preference, sft = (sum(s.supervised for s in found.sequences) for found in examples)
    return max(1, preference // sft)


def training_jobs(cfg: StudyConfig, replicate: Replicate, runs: list[tuple[str, str, str, Settings]]) -> list[Job]:
    """List trainings of a replicate: each (its column, its name, the run or model folder it starts from, the settings
    chosen).

    Preference runs from one checkpoint share the reference's log-probs, which the first of them computes.
    """
    jobs, names, first = [], {name for _, name, _, _ in runs}, {}
    for column, name, start, settings in runs:
        needs = [start] if start in names else []
        if cfg.columns[column].data == PAIRS and first.setdefault(start, name) != name:
            needs.append(first[start])
        jobs.append(training_job(cfg, replicate, column, name, start, settings, needs))
    return jobs


def study_jobs(cfg: StudyConfig, replicate: Replicate, chosen: dict[str, Settings]) -> list[Job]:
    """List all trainings of a replicate of the study, one a column."""
    columns = cfg.columns.items()
    return training_jobs(cfg, replicate, [(name, name, c.start or cfg.student, chosen[name]) for name, c in columns])


# --- tuning ---


def tune(cfg: StudyConfig, run: Run) -> dict[str, dict[str, Settings]]:
    """Choose the settings of every column: {mixture: {column: settings}}. What was tried, with its accuracies and the
    number of the best, is written beside the runs."""
    tuned = [name for name in cfg.columns if len(trials_of(cfg, name)) > 1]
    replicates = replicates_of(cfg, tuning=True) if tuned else []
    run("problems and CRV of the tuning", [job for replicate in replicates for job in data_jobs(cfg, replicate)])

    # columns that others start from come first: the others start from the best trial of theirs
    starts = {cfg.columns[name].start for name in tuned}
    first = [name for name in cfg.columns if name in starts]
    found = {mixture: {} for mixture in cfg.mixtures}
    for names in filter(None, (first, [name for name in tuned if name not in first])):
        run("tuning", [job for r in replicates for job in trial_jobs(cfg, r, names, found[r.mixture])])
        run("validation", [validation(cfg, mixture, names) for mixture in cfg.mixtures])
        for mixture in cfg.mixtures:
            found[mixture] |= choose(cfg, mixture, names)

    # as settings; a column that nothing was tried for has the only ones, or those of the column that it is like
    chosen = {mixture: {} for mixture in cfg.mixtures}
    for mixture, settings in chosen.items():
        write_text(Path(chosen_file(cfg, mixture)), json.dumps(found[mixture], indent=1))
        for name, column in cfg.columns.items():
            best = found[mixture].get(name, {"chosen": 0})["chosen"]
            settings[name] = settings[column.like] if column.like else trials_of(cfg, name)[best]
    return chosen


def trial_jobs(cfg: StudyConfig, replicate: Replicate, names: list[str], found: dict[str, dict]) -> list[Job]:
    """List the trials of some columns. found: what was chosen for the columns that they start from."""
    runs = []
    for name in names:
        start = cfg.columns[name].start or cfg.student
        start = f"{start}-{found[start]['chosen']}" if start in found else start
        runs += [(name, f"{name}-{number}", start, trial) for number, trial in enumerate(trials_of(cfg, name))]
    return training_jobs(cfg, replicate, runs)


def choose(cfg: StudyConfig, mixture: str, names: list[str]) -> dict[str, dict]:
    """Find each column's best trial by its mean validation accuracy over the tuning seeds; of equals the first.

    Returns {column: {"chosen": its number, "trials": settings, "validation": accuracies}}.
    """
    answers = read_answers(evaluation_folder(cfg, mixture, "validation"))
    replicates = [r for r in replicates_of(cfg, tuning=True) if r.mixture == mixture]
    found = {}
    for name in names:
        trials, scores = trials_of(cfg, name), []
        for number in range(len(trials)):
            right = [count for r in replicates for count in answers[r.model(f"{name}-{number}")].values()]
            scores.append(sum(right) / len(right))
        found[name] = {"chosen": scores.index(max(scores)), "trials": trials, "validation": scores}
    return found


# --- evaluation ---


def evaluation(
    cfg: StudyConfig, kind: str, replicates: list[Replicate], models: dict[str, str], tables: dict | None = None, **more
) -> Job:
    """Write the config of one evaluation of a mixture, and return the job.

    kind: evaluation_folder's. models: {name: path, with {run} in the place of a replicate's folder}. tables: beside
    that of all models. more: further keys of evaluate.py. Other models or seeds are another job, which adds to the
    folder's answers.
    """
    mixture = replicates[0].mixture
    out = Path(evaluation_folder(cfg, mixture, kind))
    config = {
        "extends": str(Path(cfg.evaluate).resolve()),
        "title": f"{cfg.name}, {mixture}, {kind}",
        "out": str(out),
        "report": str(out.with_name(f"report-{cfg.name}{'' if kind == 'test' else f'-{kind}'}")),
        "runs": {f"seed {replicate.seed}": replicate.folder for replicate in replicates},
        "models": models,
        "tables": {"all": {"title": "All columns", "columns": {name: name for name in models}}} | (tables or {}),
        "benchmarks": {mixture: {"file": replicates[0].test_file, "split": "task"}},
    } | more
    name = f"{cfg.name}-{kind}-{key_of(**config)[:6]}"
    file = out.with_name(f"{name}.yaml")
    write_text(file, yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
    return Job(f"{mixture}/{name}", ("evaluate.py", "--config", str(file)))


def validation(cfg: StudyConfig, mixture: str, names: list[str]) -> Job:
    """Return the job that evaluates all trials of some columns on the validation problems."""
    replicates = [r for r in replicates_of(cfg, tuning=True) if r.mixture == mixture]
    trials = [f"{name}-{number}" for name in names for number in range(len(trials_of(cfg, name)))]
    models = {trial: f"{{run}}/{replicates[0].inside(trial)}/model" for trial in trials}
    return evaluation(cfg, "validation", replicates, models)


def study_evaluations(cfg: StudyConfig, mixture: str) -> list[Job]:
    """List the jobs that evaluate the columns on the test problems, greedy and at temperature 1."""
    replicates = [r for r in replicates_of(cfg) if r.mixture == mixture]
    models = {"student": cfg.student} | {name: f"{{run}}/{name}/model" for name in cfg.columns}
    asked = {name: models[name] for name in cfg.sampled}
    jobs = [evaluation(cfg, "test", replicates, models, cfg.tables)]
    temperature = {"samples": cfg.samples, "sampling": {"temperature": 1.0}}
    return jobs + ([evaluation(cfg, "sampled", replicates, asked, **temperature)] if asked else [])


if __name__ == "__main__":
    run_cli(main, StudyConfig, __doc__)
