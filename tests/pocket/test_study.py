"""The study: every job is a command that its script takes, settings are chosen on validation problems alone, and the
answers say what the grades say."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

import build_crv
import evaluate
import train_cogpo
import train_sft
from config import load
from data.records import write_jsonl
from errors import UserError
from evals.models import write_facts
from evals.stats import sign_flip
from pocket.problems import PocketConfig
from pocket.study import choosing, design, findings, study

SCHEMAS = {
    "train_sft.py": train_sft.Config,
    "train_cogpo.py": train_cogpo.Config,
    "build_crv.py": build_crv.Config,
    "evaluate.py": evaluate.Config,
}
CONFIGS = sorted(Path("configs/pocket/study").glob("*.yaml"))
STUDIES = [file for file in CONFIGS if "mixtures:" in file.read_text()]


def read(job):
    """The config that a job's command gives its script."""
    if job.arguments[0] == "-m":
        assert job.arguments[1] == "pocket.problems"
        return load(PocketConfig, job.arguments[2:])
    return load(SCHEMAS[job.arguments[0]], job.arguments[1:])


@pytest.mark.parametrize("file", STUDIES, ids=lambda file: file.stem)
def test_every_job_is_a_command(file, tmp_path):
    cfg = load(design.StudyConfig, ["--config", str(file), f"out={tmp_path}"])
    chosen = dict.fromkeys(design.SETS, cfg.trials["sft"][0]) | {n: cfg.trials[n][1] for n in design.LOSSES}
    for mixture in cfg.mixtures:
        tuning, replicate = (
            design.Replicate(cfg, mixture, cfg.tuning_seeds[0], True),
            design.Replicate(cfg, mixture, cfg.seeds[0]),
        )
        for one in (tuning, replicate):
            write_jsonl(one.records("sft_c"), [{"id": str(x)} for x in range(7)])
        jobs = [*study.data_jobs(cfg, tuning), *study.data_jobs(cfg, replicate)]
        jobs += study.tuning_jobs(cfg, tuning, "sft", {}) + study.tuning_jobs(cfg, tuning, "prefer", chosen)
        jobs += study.study_jobs(cfg, replicate, chosen)
        jobs += [
            study.tuning_evaluation(cfg, mixture, "sft", design.SETS),
            study.study_evaluation(cfg, mixture, chosen),
        ]
        assert len({job.name for job in jobs}) == len(jobs)
        outs = [read(job).out for job in jobs]
        assert len(set(outs)) == len(outs)
        shown = study.study_evaluation(cfg, mixture, chosen)
        models = set(read(shown).models)
        assert models == {"base", *(job.name.rpartition("/")[2] for job in study.study_jobs(cfg, replicate, chosen))}
        for table in read(shown).tables.values():
            assert set(table.columns.values()) <= models

        by_name = {job.name.rpartition("/")[2]: read(job) for job in study.study_jobs(cfg, replicate, chosen)}
        few = by_name["sft_few"].data
        assert few.limit == 7 and few.file == by_name["sft"].data.file and by_name["sft"].data.limit is None
        small, medium, large = chosen["cogpo"]["loss.betas"]
        assert by_name["cogpo"].loss.betas == (small, medium, large)
        assert by_name["cogpo_lsm"].loss.betas == (large, small, medium)
        assert by_name["cogpo_sss"].loss.betas == (small, small, small)
        assert len(design.ORDERS) == 8 and "sml" not in design.ORDERS
        starts = {c.model.path for name, c in by_name.items() if name.startswith(("cogpo", "dpo", "beta", "simpo"))}
        assert starts == {f"{replicate.folder}/crv_sft/model"}


def test_validation_and_test_problems_are_others():
    cfg = load(design.StudyConfig, ["--config", str(STUDIES[0])])
    tuning, replicate = design.Replicate(cfg, "words", 11, True), design.Replicate(cfg, "words", 1)
    trial, real = read(study.data_jobs(cfg, tuning)[0]), read(study.data_jobs(cfg, replicate)[0])
    assert trial.test_seed != real.test_seed and trial.seed != real.seed
    assert trial.avoid == [f"{real.out}/test.jsonl"]
    assert study.data_jobs(cfg, tuning)[0].needs == (study.data_jobs(cfg, replicate)[0].name,)


def test_bad_studies_are_refused(tmp_path):
    cfg = load(design.StudyConfig, ["--config", str(STUDIES[0]), f"out={tmp_path}"])
    with pytest.raises(UserError, match="equal number"):
        study.main(replace(cfg, trials=cfg.trials | {"dpo": cfg.trials["dpo"][:1]}))
    with pytest.raises(UserError, match="other seeds"):
        study.main(replace(cfg, tuning_seeds=[cfg.seeds[0]]))
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
    base = load(design.StudyConfig, ["--config", str(STUDIES[0])])
    trials = base.trials | {"sft": [{"optim.lr": 1.0}, {"optim.lr": 2.0}, {"optim.lr": 3.0}]}
    cfg = replace(base, out=str(tmp_path), trials=trials, tuning_seeds=[11, 12])
    score = {(11, 0): 4, (12, 0): 0, (11, 1): 1, (12, 1): 5, (11, 2): 3, (12, 2): 3}  # right of 6: 4, 6, 6
    right = {
        f"{tmp_path}/words/seed{seed}/tune/sft-{trial}/model": {str(x): x < count for x in range(6)}
        for (seed, trial), count in score.items()
    }
    ledgers(tmp_path / "words" / "tuning-sft", right)
    assert study.choose(cfg, "words", "sft", ["sft"]) == {"sft": {"optim.lr": 2.0}}


def test_a_report_says_what_the_grades_say(tmp_path):
    base = load(design.StudyConfig, ["--config", str(STUDIES[0])])
    cfg = replace(base, out=str(tmp_path), seeds=[1, 2, 3], mixtures={"a": "", "b": ""})
    for mixture in cfg.mixtures:
        right = {cfg.student: {str(x): False for x in range(20)}}
        for seed in cfg.seeds:
            for name in design.METHODS:
                share = {"crv_sft": 16, "sft": 6 + seed}.get(name, 10)  # of 20
                folder = f"{tmp_path}/{mixture}/seed{seed}/{name}/model"
                right[folder] = {str(x): x < share for x in range(20)}
        ledgers(tmp_path / mixture / "study", right)
        for seed in cfg.seeds:
            for file in design.SETS.values():
                write_jsonl(
                    tmp_path / mixture / f"seed{seed}/crv/{file}.jsonl", [{"id": str(x)} for x in range(9 + seed)]
                )
        for stage, names in (("sft", design.SETS), ("prefer", design.LOSSES)):
            trials = [{"optim.lr": 1e-3}, {"optim.lr": 3e-3}]
            seen = {name: {"chosen": trials[1], "trials": trials, "validation": [0.25, 0.5]} for name in names}
            (tmp_path / mixture / f"chosen-{stage}.json").write_text(json.dumps(seen))
    findings.write_report(cfg)
    text = (tmp_path / "answers.md").read_text()
    assert "| base | 0.0 % | 0.0 % |" in text
    assert "| sft | 40.0 % (35.0 40.0 45.0) | 40.0 % (35.0 40.0 45.0) |" in text
    # problems 7 … 15 differ: 7 in one seed, 8 in two, the other seven in three; all signs equal: p = 2 / 2^9
    assert "| CRV+SFT beats SFT | +40.0 (p = 0.004) | +40.0 (p = 0.004) | 6 : 0 : 0 | = 0.031 |" in text
    assert "| CogPO beats DPO | +0.0 (p = 1.000) | +0.0 (p = 1.000) | 0 : 6 : 0 | = 1.000 | = 1.000 |" in text
    assert "| sft_cr | 10–12 | 10–12 |" in text
    assert "| simpo | optim.lr=0.001; optim.lr=0.003 | 25.0 · **50.0** | 25.0 · **50.0** |" in text


def test_compare():
    ours = {("m", 1): {"x": True, "y": True}, ("m", 2): {"x": True, "y": False}}
    theirs = {("m", 1): {"x": False, "y": False}, ("m", 2): {"x": False, "y": True}}
    found = findings.compare(ours, theirs)
    assert found["points"] == {"m": 50.0} and found["runs"] == [100.0, 0.0]
    assert found["p"]["m"] == sign_flip([2, 0]) and found["p_runs"] == sign_flip([2, 0])


def test_the_choice_of_chains_is_answered_for_each_student(tmp_path):
    base = load(choosing.ChoiceConfig, ["--config", "configs/pocket/study/choice.yaml"])
    cfg = replace(base, out=str(tmp_path), seeds=[1, 2], mixtures={"a": ""})
    right = {}
    for seed in cfg.seeds:
        for number, student in enumerate(cfg.students):
            write_jsonl(tmp_path / f"a/seed{seed}/{student}-own.jsonl", [{"id": str(number + x)} for x in range(4)])
            for way in choosing.WAYS:
                folder = f"{tmp_path}/a/seed{seed}/{student}-{way}/model"
                right[folder] = {str(x): x < 5 + 10 * (way == "own") for x in range(20)}
    ledgers(tmp_path / "a/choice", right)
    text = "\n".join(choosing.answers(cfg))
    first = next(iter(cfg.students))
    assert f"| {first}-own | 75.0 % (75.0 75.0) |" in text and f"| {first}-random | 25.0 % (25.0 25.0) |" in text
    assert f"| {first}: own beats random | +50.0 (p = 0.002) | 2 : 0 : 0 | = 0.500 | = 1.000 |" in text
    assert text.endswith("4 to 4 chains a set; 75% of them chosen by both students.")
