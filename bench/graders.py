"""How often grading/answers.py is wrong on labelled answers, beside math-verify and lm-evaluation-harness.

    python -m bench.graders                             ours and math-verify, a few minutes on two cores
    python -m bench.graders --lm-eval PYTHON            and those of an interpreter with `pip install "lm-eval[math]"`
    python -m bench.graders --corpora gsm8k --errors    only these; and every item where ours differs from the label

A cell says how many right answers were rejected and how many wrong ones accepted; what was not decided in time accepts
nothing and is counted. math_verify gets the answer alone, boxed, as it is best used. The labelled answers (--data) are
not distributed with the project.
"""

import argparse
import itertools
import json
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from bench.harness import ROOT, environment_line, table
from data.rows import iter_rows
from grading import UNDECIDED, answers

HARD_LIMIT = 40  # seconds of processor time for one item of another grader, which should stop itself long before
HANG = "made to hang"
MATH_VERIFY = ("math_verify", "math_verify_text")  # columns of the table: functions of bench/other_graders.py
LM_EVAL = ("is_equiv", "minerva", "minerva_math_verify", "gsm8k_strict", "gsm8k_flexible")


@dataclass(frozen=True)
class Item:
    """A response, the gold answer, whether they agree. said: the answer alone, for graders that read no text."""

    text: str
    gold: str
    equal: bool
    said: str
    tolerance: object = None


def item(text: str, gold: str, equal: object) -> Item:  # of a whole response
    return Item(text, gold, bool(equal), answers.final_answer(answers.strip_thought(text) or "") or "")


def pair(pred: str, gold: str, equal: object, tolerance: object = None) -> Item:  # of an answer alone, boxed
    return Item(f"\\boxed{{{pred}}}", gold, bool(equal), pred, tolerance)


def by_text(row):
    return [item(row["pred_text"], row["gold"], row["equal"])]


def by_answer(row):
    tolerance = row.get("precision")
    tolerance = json.loads(tolerance) if isinstance(tolerance, str) else tolerance
    return [pair(row["pred"], row["gold"], row["equal"], tolerance)]


def gsm8k(row):
    gold = row["ground_truth"].rpartition("A:")[2].strip()
    return [item(said["solution"], gold, said["is_correct"]) for said in row.values() if isinstance(said, dict)]


def mr_gsm8k(row):
    gold = str(row["ground_truth_answer"]).split("\n")[0]  # a line of a prompt follows some
    right = row["model_output_answer_correctness"] == "correct"
    return [item("\n".join(row["model_output_steps"]), gold, right)] if re.search(r"\d", gold) else []


MATH500, OLYMPIAD = "math500/test.jsonl", "olympiadbench_math_en/OE_TO_maths_en_COMP.jsonl"
CORPORA = {  # name: (file, the Items of one of its rows), or where the golds are whose next one is taken as the answer
    "GSM8K solutions": ("gsm8k/example_model_solutions.jsonl", gsm8k),
    "MATH-500, own answers": (MATH500, lambda row: [pair(row["answer"], row["answer"], True)]),
    "MATH-500, own solutions": (MATH500, lambda row: [item(row["solution"], row["answer"], True)]),
    "MATH-500, next answers": "MATH-500, own answers",
    "Olympiad, own answers": (OLYMPIAD, lambda row: [pair(row["final_answer"][0], row["final_answer"][0], True)]),
    "Olympiad, next answers": "Olympiad, own answers",
    "Olympiad, several answers": ("grader_pairs/olympiadbench_multi_answer_derived.jsonl", by_answer),
    "Olympiad, scoring examples": ("grader_pairs/olympiadbench_scoring_examples.jsonl", by_answer),
    "Qwen chains": (
        "qwen25math_rm_maj_example/math_cot_100.jsonl",
        lambda row: [item(text, str(row["gt"]), good) for text, good in zip(row["code"], row["score"], strict=True)],
    ),
    "R1-distill answers": ("grader_pairs/thought_anchors_r1distill_answers.jsonl", by_answer),
    "MR-GSM8K": ("mr_gsm8k_subset/mr_gsm8k_subset.jsonl", mr_gsm8k),
    "NeMo pairs": ("grader_pairs/nemo_skills_test_math_equal.jsonl", by_answer),
    "inspect_ai cases": ("grader_pairs/inspect_ai_math_cases.jsonl", by_text),
    "math-verify's own tests": ("grader_pairs/math_verify_own_tests.jsonl", by_text),
    "reported faults": (
        "field_cases/math.jsonl",
        lambda row: [] if row["accept"] is None else [item(row["response"], row["gold"], row["accept"])],
    ),
    "nasty cases": ("grader_pairs/handmade_nasty.jsonl", by_text),
    HANG: ("grader_pairs/handmade_hang.jsonl", by_text),
}


def read_corpus(name: str, data: Path) -> list[Item]:
    """Read a labelled corpus of the folder `data`."""
    if isinstance(CORPORA[name], str):  # the next problem's answer is wrong unless it is the same text
        golds = [it.gold for it in read_corpus(CORPORA[name], data)]
        return [pair(b, a, False) for a, b in itertools.pairwise(golds) if a.strip() != b.strip()]
    file, items = CORPORA[name]
    return [it for _, row in iter_rows(data / file) for it in items(row)]


# --- graders: [Item] -> [True, False, None (does not apply) or "timeout"] ---


def ours(items: list[Item]) -> list:
    """Grade with grading/answers.py, on two threads."""

    def one(it):
        status = answers.grade(it.text, it.gold, tolerance=it.tolerance).status
        return "timeout" if status in UNDECIDED else status == "correct"

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(one, items))


def other(interpreter: str, name: str, items: list[Item]) -> list:
    """Grade with a function of bench/other_graders.py. An item on which the kernel ends it at HARD_LIMIT is a time-out,
    and a fresh process takes the next. Raises RuntimeError where it does not start."""
    verdicts = []
    while len(verdicts) < len(items):
        words = [interpreter, "bench/other_graders.py", name, str(HARD_LIMIT)]
        with subprocess.Popen(
            words, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as child:
            if not child.stdout.readline():
                raise RuntimeError(f"{' '.join(words[:3])} did not start: try it by hand")
            for it in items[len(verdicts) :]:
                child.stdin.write(json.dumps([it.text, it.said, it.gold]) + "\n")
                child.stdin.flush()
                line = child.stdout.readline()
                verdicts.append(json.loads(line) if line else "timeout")
                if not line:
                    break
    return verdicts


def counts(items: list[Item], verdicts: list) -> str | None:
    """Count right answers rejected, wrong ones accepted, and time-outs; None if the grader is not for such answers."""
    if None in verdicts:
        return None
    wrong = [it.equal for it, verdict in zip(items, verdicts, strict=True) if it.equal is not (verdict is True)]
    late = verdicts.count("timeout")
    return f"{sum(wrong)} / {wrong.count(False)}" + f" ({late} timed out)" * (late > 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--lm-eval", metavar="PYTHON", help="an interpreter with lm-eval[math]")
    parser.add_argument("--corpora", nargs="+", default=[""], help="only those whose name contains one of these words")
    parser.add_argument("--alone", action="store_true", help="ours only")
    parser.add_argument("--errors", action="store_true", help="print the items where ours differs from the label")
    args = parser.parse_args()
    if not args.data.is_dir():
        sys.exit(f"no labelled answers in {args.data}: --data FOLDER")
    words = [word.lower() for word in args.corpora]
    chosen = {name: read_corpus(name, args.data) for name in CORPORA if any(word in name.lower() for word in words)}
    print(environment_line("math-verify", "sympy"))

    # ours first and alone, for its speed; starting the workers is not grading
    verdicts, number, seconds = {}, 0, 0.0
    ours([pair("\\sqrt{8}", "2\\sqrt{2}", True)] * 2)
    for name in chosen:
        began = time.perf_counter()
        verdicts[name] = {"ours": ours(chosen[name])}
        if name != HANG:
            number, seconds = number + len(chosen[name]), seconds + time.perf_counter() - began

    # then the others, two at a time
    interpreters = dict.fromkeys(MATH_VERIFY, sys.executable) | dict.fromkeys(LM_EVAL, args.lm_eval)
    asked = [grader for grader, interpreter in interpreters.items() if interpreter and not args.alone]
    jobs = list(itertools.product(chosen, asked))
    with ThreadPoolExecutor(2) as pool:
        done = pool.map(lambda job: other(interpreters[job[1]], job[1], chosen[job[0]]), jobs)
        for (name, grader), found in zip(jobs, done, strict=True):
            verdicts[name][grader] = found

    print("\nRight answers rejected / wrong ones accepted:\n")
    head = [{"corpus": name, "items": len(items)} for name, items in chosen.items()]
    print(
        table([row | {g: counts(chosen[row["corpus"]], v) for g, v in verdicts[row["corpus"]].items()} for row in head])
    )
    if number:
        print(f"Ours: {number / seconds:.0f} answers a second on 2 threads, load {os.getloadavg()[0]:.1f}.")
    for name, items in chosen.items() if args.errors else ():
        for it, said in zip(items, verdicts[name]["ours"], strict=True):
            if (said is True) != it.equal:
                print(json.dumps([name, {"gold": it.gold, "text": it.text[-300:], "label": it.equal}]))


if __name__ == "__main__":
    main()
