"""The study at pocket size: every question of Tables 2, 5, 6 and Fig. 6 over several seeds and task mixtures.

    python -m pocket.study.study --config configs/pocket/study/micro.yaml       a micro student: 80 minutes on two cores
    python -m pocket.study.study --config configs/pocket/study/smollm2.yaml     SmolLM2-135M: for who has a GPU, or days

Every unit of it is one of the project's own commands with a folder of its own and can be repeated by hand: its words
are in `out`/units/NAME.done, what it said is in NAME.log. Killed at any moment, the same command goes on.

1. The student (`prepare`); for every mixture and seed its problems, and the CRV pass over them.
2. Tuning, on seeds and problems that the study does not see: every training set of the SFT stage and every preference
   loss has the same number of trials, and the mean validation accuracy over the tuning seeds decides.
3. The study, every seed with training problems, a CRV pass and an order of its own: eight SFT runs, four preference
   losses from the CRV+SFT checkpoint, and CogPO with its three β in every other order or with one of them for all gaps.
4. evaluate.py over the test problems, with a table for each table of the paper; answers.md (pocket/study/findings.py).
"""

import contextlib
import itertools
import json
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import yaml

from config import at_least_one, claim_output, run_cli
from errors import UserError
from pocket.study.findings import num_records, read_answers, write_report
from pocket.study.units import Unit, run_units
from progress import say

SETS = {  # training sets of the SFT stage: names of build_crv.py's files
    "sft": "sft_original", "crv_sft": "sft", "sft_c": "sft_c", "sft_cr": "sft_cr", "sft_few": "sft_original",
    "sft_easy": "sft_easy", "sft_medium": "sft_medium", "sft_hard": "sft_hard",
}  # fmt: skip
AS_MANY = {"sft_few": "sft_c"}  # only so many examples as that file has: what choosing at random is worth
LOSSES = ("cogpo", "dpo", "beta_dpo", "simpo")
# which of CogPO's β (small, medium, large) the small, medium and large gap get: all but CogPO's own "sml"
ORDERS = [*map("".join, itertools.permutations("sml")), "sss", "mmm", "lll"][1:]
ADDRESS = "TEACHER-ADDRESS"  # of the scripted teacher, known only when a unit starts


@dataclass
class StudyConfig:
    out: str
    """folder of everything"""
    prepare: list[str]
    """commands that make the student, in this order, without `python`"""
    student: str
    """model folder that they leave"""
    mixtures: dict[str, str]
    """name: config of pocket.problems"""
    trials: dict[str, list[dict[str, float | list[float]]]]
    """sft, cogpo, dpo, beta_dpo, simpo: the settings to choose from"""
    train_problems: int
    """training problems of a seed"""
    test_problems: int
    """test problems of a mixture"""
    sft: str
    """config of train_sft.py"""
    prefer: str
    """config of train_cogpo.py"""
    evaluate: str
    """config of evaluate.py: how to generate"""
    validation_problems: int = 300
    """problems on which settings are chosen"""
    seeds: list[int] = field(default_factory=lambda: [1, 2, 3, 4, 5])
    """of the study"""
    tuning_seeds: list[int] = field(default_factory=lambda: [11, 12])
    """of the choice of settings"""
    test_seed: int = 1000
    """of the test problems; the validation problems come from the next one"""
    workers: int = 2
    """units at a time"""
    threads: int = 1
    """threads of each"""


FREE = ("workers", "threads")


def main(cfg):
    at_least_one(cfg, "workers", "threads", "train_problems", "test_problems", "validation_problems")
    counts = {len(cfg.trials.get(loss, ())) for loss in LOSSES}
    if not cfg.trials.get("sft") or len(counts) > 1 or 0 in counts:
        raise UserError(f"trials: sft, and an equal number each of {', '.join(LOSSES)} are needed")
    if set(cfg.seeds) & set(cfg.tuning_seeds):
        raise UserError("seeds and tuning_seeds have one in common; settings must be chosen on other seeds")
    cfg = replace(cfg, out=str(Path(cfg.out)), student=str(Path(cfg.student)))  # as evaluate.py spells them
    claim_output(cfg, cfg.out, FREE)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: the units at work are waited for
    with teacher() as address:

        def run(title, units):
            run_units(units, f"{cfg.out}/units", cfg.workers, cfg.threads, title, lambda w: w.replace(ADDRESS, address))

        run("student", student_units(cfg))
        tuning = [Place(cfg, mixture, seed, "tune/") for mixture in cfg.mixtures for seed in cfg.tuning_seeds]
        places = [Place(cfg, mixture, seed) for seed in cfg.seeds for mixture in cfg.mixtures]
        run("problems and CRV", [unit for place in places + tuning for unit in data_units(cfg, place)])
        chosen = {mixture: {} for mixture in cfg.mixtures}  # {mixture: {method: settings}}
        for stage, methods in (("sft", SETS), ("prefer", LOSSES)):
            run(f"tuning, {stage}", [unit for p in tuning for unit in tuning_units(cfg, p, stage, chosen[p.mixture])])
            run(f"tuning, {stage}, validation", [tuning_evaluation(cfg, m, stage, methods) for m in cfg.mixtures])
            for mixture in cfg.mixtures:
                choose(cfg, mixture, stage, methods, chosen[mixture])
        run("study", [unit for place in places for unit in study_units(cfg, place, chosen[place.mixture])])
        run("evaluation", [study_evaluation(cfg, mixture, chosen[mixture]) for mixture in cfg.mixtures])
    sizes = SETS | AS_MANY  # names of the files that have as many records
    write_report(cfg, [*SETS, *LOSSES, *map("cogpo_{}".format, ORDERS)], sizes)
    say(f"written: {cfg.out}/answers.md, answers.png; the tables: {cfg.out}/MIXTURE/report-study/table.md")


@contextlib.contextmanager
def teacher():
    """The scripted teacher as a process of its own; yields its address."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    process = subprocess.Popen([sys.executable, "-m", "pocket.teacher", "--port", str(port)], stdout=-3)
    try:
        while not listens(port):
            if process.poll() is not None:
                raise UserError("the scripted teacher did not start; see above")
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait()


def listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


# --- the units ---


@dataclass(frozen=True)
class Place:
    """A mixture under a seed. sub: tune/ for the trials."""

    cfg: StudyConfig
    mixture: str
    seed: int
    sub: str = ""

    @property
    def folder(self):
        return f"{self.cfg.out}/{self.mixture}/seed{self.seed}"

    def name(self, method):
        return f"{self.mixture}/seed{self.seed}/{self.sub}{method}"

    def out(self, method):
        return f"{self.folder}/{self.sub}{method}"


def student_units(cfg):
    names = [f"student/{number}" for number in range(len(cfg.prepare))]
    return [
        Unit(name, tuple(words.split()), tuple(names[:number]))
        for number, (name, words) in enumerate(zip(names, cfg.prepare, strict=True))
    ]


def data_units(cfg, place):
    """Its problems (a tuning seed's test problems are the validation problems: no test problem of the study is among
    its problems), and CRV."""
    folder, trial = place.folder, bool(place.sub)
    study = Place(cfg, place.mixture, cfg.seeds[0])
    words = [
        "-m", "pocket.problems", "--config", cfg.mixtures[place.mixture], f"out={folder}/data", f"seed={place.seed}",
        f"test_seed={cfg.test_seed + trial}", f"train_problems={cfg.train_problems}",
        f"test_problems={cfg.validation_problems if trial else cfg.test_problems}",
    ]  # fmt: skip
    if trial:
        words.append(f"avoid=[{study.folder}/data/test.jsonl]")
    problems = Unit(place.name("data"), tuple(words), (study.name("data"),) if trial else ())
    crv = (
        "build_crv.py", "--config", "configs/pocket/study/crv.yaml", f"problems={folder}/data/problems.jsonl",
        f"out={folder}/crv", f"endpoints.teacher.base_url={ADDRESS}", f"seed={place.seed}",
    )  # fmt: skip
    return [problems, Unit(place.name("crv"), crv, (problems.name,))]


def sft_unit(cfg, place, name, dataset, settings):
    words = [
        "train_sft.py", "--config", cfg.sft, f"model.path={cfg.student}", f"out={place.out(name)}",
        f"data.file={place.folder}/crv/{SETS[dataset]}.jsonl", f"seed={place.seed}", *words_of(settings),
    ]  # fmt: skip
    if dataset in AS_MANY:
        words.append(f"data.limit={num_records(f'{place.folder}/crv/{AS_MANY[dataset]}.jsonl')}")
    return Unit(place.name(name), tuple(words))


def preference_unit(cfg, place, name, loss, settings, start, needs=()):
    """start: name of the run whose checkpoint it starts from. Runs from one checkpoint share the reference's
    log-probs; the one that `needs` names computes them."""
    words = (
        "train_cogpo.py", "--config", cfg.prefer, f"model.path={place.out(start)}/model", f"out={place.out(name)}",
        f"data.file={place.folder}/crv/pairs.jsonl", f"reference_cache={place.out('reference')}", f"loss.name={loss}",
        f"seed={place.seed}", *words_of(settings),
    )  # fmt: skip
    return Unit(place.name(name), words, tuple(place.name(need) for need in needs))


def words_of(settings):
    return tuple(f"{key}={json.dumps(value)}" for key, value in settings.items())


def trial_names(cfg, method):
    return [f"{method}-{number}" for number in range(len(cfg.trials["sft" if method in SETS else method]))]


def tuning_units(cfg, place, stage, chosen):
    """The trials of a stage. chosen: the settings of the stage before."""
    if stage == "sft":
        return [
            sft_unit(cfg, place, name, dataset, settings)
            for dataset in SETS
            for name, settings in zip(trial_names(cfg, dataset), cfg.trials["sft"], strict=True)
        ]
    start = trial_names(cfg, "crv_sft")[cfg.trials["sft"].index(chosen["crv_sft"])]
    runs = [(loss, *trial) for loss in LOSSES for trial in zip(trial_names(cfg, loss), cfg.trials[loss], strict=True)]
    first = runs[0][1]
    return [
        preference_unit(cfg, place, name, loss, settings, start, () if name == first else (first,))
        for loss, name, settings in runs
    ]


def study_units(cfg, place, chosen):
    betas = dict(zip("sml", chosen["cogpo"]["loss.betas"], strict=True))
    units = [sft_unit(cfg, place, dataset, dataset, chosen[dataset]) for dataset in SETS]
    units += [preference_unit(cfg, place, "cogpo", "cogpo", chosen["cogpo"], "crv_sft", ("crv_sft",))]
    units += [preference_unit(cfg, place, n, n, chosen[n], "crv_sft", ("cogpo",)) for n in LOSSES if n != "cogpo"]
    for order in ORDERS:
        settings = chosen["cogpo"] | {"loss.betas": [betas[letter] for letter in order]}
        units += [preference_unit(cfg, place, f"cogpo_{order}", "cogpo", settings, "crv_sft", ("cogpo",))]
    return units


# --- tuning and evaluation ---


def evaluation(cfg, mixture, name, places, models, tables, title):
    """The unit that evaluates `models` ({name: path, {run} in it for a seed's folder}) of these places."""
    folder = Path(cfg.out) / mixture
    folder.mkdir(parents=True, exist_ok=True)
    test = {"file": f"{places[0].folder}/data/test.jsonl", "split": "task"}
    config = {
        "extends": str(Path(cfg.evaluate).resolve()),
        "title": title,
        "out": f"{folder}/{name}",
        "report": f"{folder}/report-{name}",
        "runs": {f"seed {place.seed}": place.folder for place in places},
        "models": models,
        "tables": tables,
        "benchmarks": {mixture: test},
    }
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
    return Unit(f"{mixture}/{name}", ("evaluate.py", "--config", str(file)))


def tuning_evaluation(cfg, mixture, stage, methods):
    names = [name for method in methods for name in trial_names(cfg, method)]
    places = [Place(cfg, mixture, seed, "tune/") for seed in cfg.tuning_seeds]
    models = {name: f"{{run}}/tune/{name}/model" for name in names}
    return evaluation(cfg, mixture, f"tuning-{stage}", places, models, {}, f"Tuning on {mixture}: {stage}")


def choose(cfg, mixture, stage, methods, chosen):
    """Put the settings of each method's best trial into `chosen`, all trials into a file beside the runs."""
    answers = read_answers(f"{cfg.out}/{mixture}/tuning-{stage}")
    seen = {}
    for method in methods:
        trials = cfg.trials["sft" if method in SETS else method]
        scores = []
        for name in trial_names(cfg, method):
            places = [Place(cfg, mixture, seed, "tune/") for seed in cfg.tuning_seeds]
            right = [right for p in places for right in answers[f"{p.out(name)}/model"].values()]
            scores.append(sum(right) / len(right))
        chosen[method] = trials[scores.index(max(scores))]  # of equals the first
        seen[method] = {"chosen": chosen[method], "trials": trials, "validation": scores}
    Path(cfg.out, mixture, f"chosen-{stage}.json").write_text(json.dumps(seen, indent=1))


def study_evaluation(cfg, mixture, chosen):
    places = [Place(cfg, mixture, seed) for seed in cfg.seeds]
    betas = dict(zip("sml", chosen["cogpo"]["loss.betas"], strict=True))

    def shown(order):
        return "/".join(f"{betas[letter]:g}" for letter in order)

    names = [*SETS, *LOSSES, *(f"cogpo_{order}" for order in ORDERS)]
    models = {"base": cfg.student} | {name: f"{{run}}/{name}/model" for name in names}
    tables = {
        "table2": {
            "title": "Training methods (the layout of the paper's Table 2)",
            "columns": {
                "base": "base", "SFT": "sft", "CRV+SFT": "crv_sft", "DPO": "dpo", "β-DPO": "beta_dpo",
                "SimPO": "simpo", "CogPO": "cogpo",
            },
            "against": {"β-DPO": "CRV+SFT", "SimPO": "CRV+SFT", "CogPO": "CRV+SFT"},
        },
        "table6": {
            "title": "Ablation of the CRV system (the layout of the paper's Table 6)",
            "columns": {
                "SFT": "sft", "as many as C": "sft_few", "w. C": "sft_c", "w. CR": "sft_cr", "w. CRV": "crv_sft",
            },
            "against": {"w. C": "SFT"},
        },
        "table5": {
            "title": "Training data of one complexity level (the layout of the paper's Table 5)",
            "columns": {"Easy": "sft_easy", "Medium": "sft_medium", "Hard": "sft_hard"},
        },
        "figure6": {
            "title": "β of the small/medium/large gap (the question of the paper's Fig. 6)",
            "columns": {shown("sml"): "cogpo"} | {shown(order): f"cogpo_{order}" for order in ORDERS},
            "against": {shown(order): shown("sml") for order in ORDERS},
        },
    }  # fmt: skip
    return evaluation(cfg, mixture, "study", places, models, tables, f"The pocket study, {mixture}")


if __name__ == "__main__":
    run_cli(main, StudyConfig, __doc__)
