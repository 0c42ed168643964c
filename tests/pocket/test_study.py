"""The study: every job is a command that its script takes, settings are chosen on validation problems alone, and the
answers say what the grades say."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

import build_crv
import evaluate
import train_cogpo
import train_sft
from config import load
from data.dataset import load_pairs, load_sft
from data.records import write_jsonl
from data.render import Renderer
from errors import UserError
from evals.models import write_facts
from evals.stats import sign_flip
from model.load import load_tokenizer
from pocket.problems import PocketConfig
from pocket.study import choosing, design, findings, study
from settings import DataConfig
from tests.support.tiny import pair_rows, sft_rows

SCHEMAS = {
    "train_sft.py": train_sft.Config,
    "train_cogpo.py": train_cogpo.Config,
    "build_crv.py": build_crv.Config,
    "evaluate.py": evaluate.Config,
}
CONFIGS = sorted(Path("configs/pocket/study").glob("*.yaml"))
STUDIES = [file for file in CONFIGS if "columns:" in file.read_text()]
PREFERENCE = "configs/pocket/study/preference.yaml"


def study_of(file, **more):
    schema = choosing.ChoiceConfig if "choice" in str(file) else design.StudyConfig
    return replace(load(schema, ["--config", str(file)]), **more)


def read(job):
    """The config that a job's command gives its script."""
    if job.arguments[0] == "-m":
        assert job.arguments[1] == "pocket.problems"
        return load(PocketConfig, job.arguments[2:])
    return load(SCHEMAS[job.arguments[0]], job.arguments[1:])


@pytest.mark.parametrize("file", STUDIES, ids=lambda file: file.stem)
def test_every_job_is_a_command(file, tmp_path, monkeypatch):
    monkeypatch.setattr(study, "equal_epochs", lambda cfg, pairs, data: 5)  # needs the student; see below
    cfg = study_of(file, out=str(tmp_path))
    design.check(cfg)
    for mixture in cfg.mixtures:
        tuning, replicate = design.Replicate(cfg, mixture, 11, True), design.Replicate(cfg, mixture, cfg.seeds[0])
        for one in (tuning, replicate):
            write_jsonl(one.records("crv/sft_c"), [{"id": str(x)} for x in range(7)])
        chosen = {name: design.trials_of(cfg, name)[-1] for name in cfg.columns}
        found = {name: {"chosen": 0} for name in cfg.columns}
        jobs = [*study.data_jobs(cfg, tuning), *study.data_jobs(cfg, replicate)]
        trainings = study.study_jobs(cfg, replicate, chosen)
        jobs += study.trial_jobs(cfg, tuning, list(cfg.columns), found) + trainings
        jobs += study.study_evaluations(cfg, mixture)
        assert len({job.name for job in jobs}) == len(jobs)
        outs = [read(job).out for job in jobs]
        assert len(set(outs)) == len(outs)
        trained = {job.name.rpartition("/")[2] for job in trainings}
        shown = read(study.study_evaluations(cfg, mixture)[0])
        assert set(shown.models) == {"student", *trained} == {*shown.tables["all"].columns.values()}
        for job in trainings:  # what another run leaves is there when it starts
            needed = [name for name in trained if f"/{name}/model" in job.arguments[3]]
            assert all(replicate.job(name) in job.needs for name in needed)


def test_the_columns_are_what_the_page_says(tmp_path, monkeypatch):
    monkeypatch.setattr(study, "equal_epochs", lambda cfg, pairs, data: 5)
    cfg = study_of("configs/pocket/study/orders.yaml", out=str(tmp_path))
    replicate = design.Replicate(cfg, "words", 1)
    jobs = study.study_jobs(cfg, replicate, {name: {"optim.lr": 2e-6} for name in cfg.columns})
    by_name, needs = ({job.name.rpartition("/")[2]: what(job) for job in jobs} for what in (read, lambda j: j.needs))
    assert by_name["cogpo"].loss.betas == by_name["cogpo_lms"].loss.betas[::-1] == (0.1, 0.2, 0.5)
    assert by_name["more"].epochs == 5 and by_name["more"].optim.lr == 2e-6
    assert by_name["more"].data.file == by_name["crv_sft"].data.file
    assert by_name["dpop"].loss.penalty == 50 and by_name["cogpo_token"].loss.per_token
    starts = {name: c.model.path.split("/")[-2] for name, c in by_name.items()}
    assert {name for name, start in starts.items() if start == "sft"} == {n for n in starts if n.startswith("sft_")}
    # one run of each checkpoint computes the reference's log-probs, the others find them
    assert needs["sft_cogpo"] == (replicate.job("sft"),)
    assert needs["sft_dpo"] == (replicate.job("sft"), replicate.job("sft_cogpo"))
    caches = {c.reference_cache for c in by_name.values() if hasattr(c, "reference_cache")}
    assert caches == {replicate.output("reference")}

    few = study_of("configs/pocket/study/sft.yaml", out=str(tmp_path))
    write_jsonl(replicate.records("crv/sft_c"), [{"id": str(x)} for x in range(7)])
    jobs = study.study_jobs(few, replicate, {name: {} for name in few.columns})
    assert {job.name.rpartition("/")[2]: read(job).data.limit for job in jobs}["sft_few"] == 7


def test_more_sft_trains_no_more_tokens_than_the_preference_run(tmp_path, tiny_qwen):
    student = str(tiny_qwen)
    write_jsonl(tmp_path / "pairs.jsonl", pair_rows(8))
    write_jsonl(tmp_path / "sft.jsonl", sft_rows(3))
    cfg = study_of(PREFERENCE, student=student)
    renderer = Renderer(load_tokenizer(student))
    chains = {repr((row["prompt"], row[side])) for row in pair_rows(8) for side in ("chosen", "rejected")}
    preference = sum(
        s.supervised for s in load_pairs(DataConfig(str(tmp_path / "pairs.jsonl")), renderer, True).sequences
    )
    sft = sum(s.supervised for s in load_sft(DataConfig(str(tmp_path / "sft.jsonl")), renderer).sequences)
    epochs = study.equal_epochs(cfg, str(tmp_path / "pairs.jsonl"), str(tmp_path / "sft.jsonl"))
    assert epochs > 1 and epochs * sft <= preference < (epochs + 1) * sft
    assert len(load_pairs(DataConfig(str(tmp_path / "pairs.jsonl")), renderer, True).sequences) == len(chains)


def test_validation_and_test_problems_are_others():
    cfg = study_of(PREFERENCE)
    tuning, replicate = design.Replicate(cfg, "words", 11, True), design.Replicate(cfg, "words", 1)
    trial, real = read(study.data_jobs(cfg, tuning)[0]), read(study.data_jobs(cfg, replicate)[0])
    assert trial.test_seed != real.test_seed and trial.seed != real.seed
    assert trial.avoid == [f"{real.out}/test.jsonl"]


def test_bad_studies_are_refused(tmp_path):
    cfg = study_of(PREFERENCE, out=str(tmp_path))
    column = cfg.columns["dpo"]
    for wrong, said in (
        ({"trials": cfg.trials | {"early": cfg.trials["early"][:1]}}, "equal number"),
        ({"tuning_seeds": [cfg.seeds[0]]}, "other seeds"),
        ({"tuning_seeds": []}, "at least one is needed"),
        ({"mixtures": cfg.mixtures | {"m": "configs/no.yaml"}}, "mixtures.m: there is no file configs/no.yaml"),
        ({"crv": "configs/no.yaml"}, "crv: there is no file configs/no.yaml"),
        ({"tables": {"t": {"columns": {"X": "cogpoo"}}}}, "tables.* no 'cogpoo'"),
        ({"questions": cfg.questions | {"q": ("cogpo", "cogpoo")}}, "no 'cogpoo'"),
        ({"columns": cfg.columns | {"x": replace(column, start="y")}}, "columns.x.start: no column 'y'"),
        ({"columns": cfg.columns | {"x": replace(column, start="dpo")}}, "dpo itself starts from another"),
        ({"columns": cfg.columns | {"x": replace(column, like="y")}}, "columns.x.like: there is no 'y'"),
    ):
        with pytest.raises(UserError, match=said):
            study.main(replace(cfg, **wrong))
    assert not any(tmp_path.iterdir())


# --- choosing and answering, from ledgers as evaluate.py leaves them ---


def ledgers(folder, right):
    """right: {model folder: {problem id: bool}}. Of models with equal answers only the first has any, as if their
    weights were equal: evaluate.py generates for a content once."""
    generations, grades, first = [], [], {}
    for model, problems in right.items():
        content = str(problems)
        if first.setdefault(content, model) != model:
            continue
        for problem, is_right in problems.items():
            key = f"{model} {problem}"
            generations.append({"key": key, "model": model, "benchmark": "b", "problem_id": problem, "sample": 0})
            grades.append({"key": "g" + key, "generation": key, "status": "correct" if is_right else "wrong"})
    write_jsonl(folder / "generations.jsonl", generations)
    write_jsonl(folder / "grades.jsonl", grades[::-1])
    write_facts(folder, {"folders": {model: [[], str(problems)] for model, problems in right.items()}, "speed": {}})


def test_the_best_mean_over_the_tuning_seeds_is_chosen(tmp_path):
    cfg = study_of(PREFERENCE, out=str(tmp_path), tuning_seeds=[11, 12], trials={"more": [{"optim.lr": 1.0}] * 3})
    score = {(11, 0): 4, (12, 0): 0, (11, 1): 1, (12, 1): 5, (11, 2): 3, (12, 2): 3}  # right of 6: 4, 6, 6
    right = {
        f"{tmp_path}/words/seed{seed}/tune/more-{trial}/model": {str(x): x < count for x in range(6)}
        for (seed, trial), count in score.items()
    }
    ledgers(tmp_path / "words" / "validation", right)
    assert study.choose(cfg, "words", ["more"])["more"]["chosen"] == 1


def test_settings_are_tuned_in_two_stages_and_handed_on(tmp_path, monkeypatch):
    """The second stage starts from the best trial of the first; a column that is like another takes its choice."""
    columns = {
        "a": design.ColumnConfig("crv/sft", trials="rates"),
        "b": design.ColumnConfig("crv/pairs", start="a", trials="rates"),
        "c": design.ColumnConfig("crv/pairs", start="a", like="b"),
        "d": design.ColumnConfig("crv/sft", settings={"epochs": 2}),
    }
    cfg = study_of(
        PREFERENCE, out=str(tmp_path), columns=columns, trials={"rates": [{"optim.lr": 1.0}, {"optim.lr": 2.0}]},
        mixtures={"m": "configs/pocket/study/words.yaml"}, questions={}, exploratory=[], sampled=[],
    )  # fmt: skip
    ran = {}

    def run(title, jobs):  # what evaluate.py would leave: every trial answers, the higher rate better
        for job in jobs:
            ran[job.name] = job
        if title == "validation":
            trained = [read(job).out for job in ran.values() if "/tune/" in job.name and "train_" in job.arguments[0]]
            right = {f"{out}/model": {str(x): x < 3 + int(out[-1]) for x in range(6)} for out in trained}
            ledgers(tmp_path / "m/validation", right)

    (tmp_path / "m").mkdir()
    assert study.tune(cfg, run)["m"] == {
        "a": {"optim.lr": 2.0},
        "b": {"optim.lr": 2.0},
        "c": {"optim.lr": 2.0},
        "d": {},
    }
    assert read(ran["m/seed11/tune/b-0"]).model.path.endswith("/tune/a-1/model")
    assert not any("/tune/d-" in name or "/tune/c-" in name for name in ran)


def test_a_report_says_what_the_grades_say(tmp_path):
    cfg = study_of(
        PREFERENCE,
        out=str(tmp_path),
        seeds=[1, 2, 3],
        mixtures={"a": "", "b": ""},
        samples=1,
        sampled=["sft", "crv_sft"],
    )
    for mixture in cfg.mixtures:
        right = {cfg.student: {str(x): False for x in range(20)}}
        for seed in cfg.seeds:
            for name in cfg.columns:
                share = {"crv_sft": 16, "sft": 6 + seed}.get(name, 10)  # of 20
                folder = f"{tmp_path}/{mixture}/seed{seed}/{name}/model"
                right[folder] = {str(x): x < share for x in range(20)}
        ledgers(tmp_path / mixture / "test", right)
        ledgers(tmp_path / mixture / "sampled", right)
        for seed in cfg.seeds:
            for file in {column.data for column in cfg.columns.values()}:
                write_jsonl(tmp_path / mixture / f"seed{seed}/{file}.jsonl", [{"id": str(x)} for x in range(9 + seed)])
        trials = [{"optim.lr": 1e-3}, {"optim.lr": 3e-3}]
        seen = {"simpo": {"chosen": 1, "trials": trials, "validation": [0.25, 0.5]}}
        (tmp_path / mixture / "chosen-preference.json").write_text(json.dumps(seen))
    findings.write_report(cfg, "a note")
    text = (tmp_path / "preference.md").read_text()
    assert "| student | 0.0 % | 0.0 % |" in text
    assert "| sft | 40.0 % (35.0 40.0 45.0) | 40.0 % (35.0 40.0 45.0) |" in text
    # problems 7 … 15 differ: 7 in one seed, 8 in two, the other seven in three; all signs equal: p = 2 / 2^9.
    # Differences of 45, 40 and 35 twice: s = 4.5, n = 6, t.975 + t.8 = 3.35
    line = "| CRV+SFT beats SFT | +40.0 (p = 0.004) | +40.0 (p = 0.004) | 6 : 0 : 0 | = 0.031 |  | 6.1 |"
    assert text.count(line) == 2  # exploratory; greedy, and at temperature 1
    assert "| CogPO beats DPO | +0.0 (p = 1.000) | +0.0 (p = 1.000) | 0 : 6 : 0 | = 1.000 | = 1.000 | 0.0 |" in text
    assert "the 16 questions" in text
    assert "| crv/sft | 10–12 | 10–12 |" in text
    assert "| simpo | optim.lr=0.001; optim.lr=0.003 | 25.0 · **50.0** | 25.0 · **50.0** |" in text
    assert text.endswith("a note\n")


def test_compare():
    ours = {("m", 1): {"x": 2, "y": 2}, ("m", 2): {"x": 2, "y": 0}}
    theirs = {("m", 1): {"x": 0, "y": 0}, ("m", 2): {"x": 0, "y": 2}}
    found = findings.compare(ours, theirs, samples=2)
    assert found["points"] == {"m": 50.0} and found["runs"] == [100.0, 0.0]
    assert found["p"]["m"] == sign_flip([2, 0]) and found["p_runs"] == sign_flip([2, 0])


def test_several_answers_a_problem_are_counted(tmp_path):
    rows = [("p", 0, "correct"), ("p", 1, "correct"), ("q", 0, "wrong"), ("q", 1, "correct"), ("q", 2, "correct")]
    keys = [f"{problem}{sample}" for problem, sample, _ in rows]
    write_jsonl(
        tmp_path / "generations.jsonl",
        [
            {"key": key, "model": "m", "benchmark": "b", "problem_id": problem, "sample": sample}
            for key, (problem, sample, _) in zip(keys, rows, strict=True)
        ],
    )
    grades = [{"key": "g" + key, "generation": key, "status": row[2]} for key, row in zip(keys, rows, strict=True)]
    write_jsonl(tmp_path / "grades.jsonl", grades)
    write_facts(tmp_path, {"folders": {}, "speed": {}})
    assert findings.read_answers(tmp_path, samples=2) == {"m": {"p": 2, "q": 1}}


def test_what_a_study_can_see():
    """Ten runs with s = 1: t(9) = 2.262 + 0.883, divided by √10."""
    assert findings.detectable([1.0, -1.0] * 5) == pytest.approx(3.145 / 10**0.5 * (10 / 9) ** 0.5, rel=0.02)
    assert math.isnan(findings.detectable([1.0]))
