"""What the study says: one line a question, from the grades that evaluate.py left.

A difference is tested twice. Over the problems of a mixture: exact sign-flip test on the number of seeds that got a
problem right (evals/stats.py), which asks whether these trained models differ. Over the runs: the same test on the
difference of each (mixture, seed), which asks whether another training would differ too; n runs cannot give a p below
2 / 2^n. The p over runs of all questions are also shown after Holm's correction.
"""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from data.errors import UserError
from data.records import iter_jsonl
from evals.models import read_facts
from evals.stats import holm, sign_flip
from evals.tables import markdown_rows

QUESTIONS = [  # what is asked, a run, the run it is compared with
    ("CRV+SFT beats SFT", "crv_sft", "sft"),
    ("C adds (to SFT)", "sft_c", "sft"),
    ("R adds (to C)", "sft_cr", "sft_c"),
    ("V adds (to CR)", "crv_sft", "sft_cr"),
    ("medium beats easy", "sft_medium", "sft_easy"),
    ("medium beats hard", "sft_medium", "sft_hard"),
    ("DPO beats CRV+SFT", "dpo", "crv_sft"),
    ("β-DPO beats CRV+SFT", "beta_dpo", "crv_sft"),
    ("SimPO beats CRV+SFT", "simpo", "crv_sft"),
    ("CogPO beats CRV+SFT", "cogpo", "crv_sft"),
    ("CogPO beats DPO", "cogpo", "dpo"),
    ("CogPO beats β-DPO", "cogpo", "beta_dpo"),
    ("CogPO beats SimPO", "cogpo", "simpo"),
]
GAPS = {"s": "small", "m": "medium", "l": "large"}


def read_answers(folder):
    """{model folder: {problem id: right}} of an evaluate.py output folder, which holds the responses of equal models
    once. Raises UserError where a model has several responses to a problem, so that it is not clear which one counts,
    and where one has no grade."""
    status = {row["generation"]: row["status"] for _, row in iter_jsonl(Path(folder) / "grades.jsonl")}
    answers = {}
    for _, row in iter_jsonl(Path(folder) / "generations.jsonl"):
        model, problem = row["model"], row["problem_id"]
        if row["key"] not in status:
            raise UserError(
                f"{folder}: {model}'s response to {problem} has no grade; run evaluate.py --grade-only there"
            )
        if problem in answers.setdefault(model, {}):
            raise UserError(
                f"{folder} holds several responses of {model} to {problem}, of other weights or settings; delete the "
                f"folder and evaluate again"
            )
        answers[model][problem] = status[row["key"]] == "correct"
    content = {model: hash for model, (_, hash) in read_facts(folder)["folders"].items()}
    by_content = {content[model]: right for model, right in answers.items()}
    return {model: by_content[hash] for model, hash in content.items() if hash in by_content}


def compare(ours, theirs):
    """ours, theirs: {(mixture, seed): {problem id: right}} of two runs. {"points": {mixture: difference in percentage
    points}, "p": {mixture: p over problems}, "runs": [difference of each run], "p_runs": p over runs}."""
    found = {"points": {}, "p": {}, "runs": [], "p_runs": 1.0}
    gains = []
    for mixture in dict.fromkeys(mixture for mixture, _ in ours):
        places = [place for place in ours if place[0] == mixture]
        problems = ours[places[0]]
        by_problem = [sum(ours[p][x] - theirs[p][x] for p in places) for x in problems]
        by_run = [sum(ours[p][x] - theirs[p][x] for x in problems) for p in places]
        found["points"][mixture] = 100 * sum(by_run) / len(by_run) / len(problems)
        found["p"][mixture] = sign_flip(by_problem)
        found["runs"] += [100 * gain / len(problems) for gain in by_run]
        gains += by_run
    return found | {"p_runs": sign_flip(gains)}


def write_report(cfg, methods):
    """Write answers.md and answers.png into the study's folder. cfg: a StudyConfig. methods: names of the runs."""
    graded = {mixture: read_answers(f"{cfg.out}/{mixture}/study") for mixture in cfg.mixtures}
    folder = "{out}/{mixture}/seed{seed}/{name}/model"
    runs = {  # {method: {(mixture, seed): {problem id: right}}}
        name: {
            (mixture, seed): graded[mixture][folder.format(out=cfg.out, mixture=mixture, seed=seed, name=name)]
            for mixture in cfg.mixtures
            for seed in cfg.seeds
        }
        for name in methods
    }
    orders = [(f"s/m/l beats {'/'.join(name[-3:])}", "cogpo", name) for name in methods if name.startswith("cogpo_")]
    questions = [*QUESTIONS, *orders]
    found = [compare(runs[ours], runs[theirs]) for _, ours, theirs in questions]
    corrected = holm([answer["p_runs"] for answer in found])
    out = Path(cfg.out)
    base = {mixture: graded[mixture][cfg.student] for mixture in cfg.mixtures}
    text = [
        *_accuracies({"base": {(mixture, 0): right for mixture, right in base.items()}} | runs, cfg.mixtures),
        "",
        *_questions(questions, found, corrected, cfg.mixtures),
    ]
    (out / "answers.md").write_text("\n".join(text) + "\n")
    _plot(questions, found, out / "answers.png")


def _accuracies(runs, mixtures):
    """Accuracy of every run: the mean over the seeds, then each of them."""
    rows = [["", *mixtures]]
    for name, places in runs.items():
        cells = []
        for mixture in mixtures:
            seeds = [100 * sum(right.values()) / len(right) for (m, _), right in places.items() if m == mixture]
            each = f" ({' '.join(f'{x:.1f}' for x in seeds)})" if len(seeds) > 1 else ""
            cells.append(f"{sum(seeds) / len(seeds):.1f} %{each}")
        rows.append([name, *cells])
    return markdown_rows(rows)


def _questions(questions, found, corrected, mixtures):
    """A line a question: points and p over problems for each mixture, in how many runs it holds, p over the runs."""
    rows = [["question", *mixtures, "runs in favour", "p over runs", "after Holm"]]
    for (question, _, _), answer, p_holm in zip(questions, found, corrected, strict=True):
        cells = [f"{answer['points'][m]:+.1f} (p {_p(answer['p'][m])})" for m in mixtures]
        gains = answer["runs"]
        favour = f"{sum(gain > 0 for gain in gains)} of {len(gains)}"
        rows.append([question, *cells, favour, _p(answer["p_runs"]), _p(p_holm)])
    return markdown_rows(rows)


def _p(p):
    return "< .001" if p < 0.001 else f"= {p:.3f}"


def _plot(questions, found, file):
    """Difference in points: a dot for every run, a bar for their mean."""
    figure, axes = plt.subplots(figsize=(8, 0.32 * len(questions) + 1), layout="constrained")
    for y, answer in enumerate(found):
        gains = answer["runs"]
        axes.plot(gains, [y] * len(gains), "o", color="#56B4E9", markersize=4, alpha=0.7)
        axes.plot(sum(gains) / len(gains), y, "|", color="#D55E00", markersize=14, markeredgewidth=2.5)
    axes.axvline(0, color="#1d2329", linewidth=0.8)
    axes.set_yticks(range(len(questions)), [question for question, _, _ in questions])
    axes.invert_yaxis()
    axes.set_xlabel("difference in percentage points: a dot for each mixture and seed, a bar for the mean")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=150)
    plt.close(figure)
