"""False accepts and false rejects of grading/answers.py on labelled answers, beside math-verify and
lm-evaluation-harness.

    python -m bench.grading                             ours and math-verify, a few minutes on two cores
    python -m bench.grading --lm-eval PYTHON            and those of an interpreter with `pip install "lm-eval[math]"`
    python -m bench.grading --corpora gsm8k --errors    only these; and every item where ours differs from the label

Without labelled answers in --data there is nothing to measure. Every grader gets the same response and gold answer;
"math-verify" gets the answer alone, boxed, as it is best used, and "whole text" is what a plain call does. A cell says
how many right answers were rejected and how many wrong ones accepted; a time-out accepts nothing and is counted. The
speed is that of ours, over everything but the cases made to hang, on two threads.
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

from bench.common import ROOT, environment_line, table
from grading import UNDECIDED, answers

HARD_LIMIT = 40  # seconds of processor time for one item of a peer, which should stop itself long before
HANG = "made to hang"

# Where ours differs from the label on purpose: (corpus, gold, part of the response, why). Counted as labelled.
DISPUTED = [
    ("MATH-500, next answers", "5", "x=5", "the next answer happens to be the same number, named"),
    ("Qwen chains", "10{,}000", "\\boxed{10000}", "the same number"),
    ("R1-distill answers", "\\frac{x^2}{4} - 1", "{y = ", "the same expression, named"),
    ("MR-GSM8K", "20", "#### 8", "8 is not 20"),
    ("MR-GSM8K", "2", "print(time)", "a program that would have to be run"),
    ("math-verify's own tests", "$9$", "Answer $ \n 9", "9 is 9; the test is about line breaks between dollar signs"),
    ("math-verify's own tests", "$9$", "Answer \\( \n 9", "the same between \\( and \\)"),
    (
        "math-verify's own tests",
        "$(\\begin{pmatrix}\\frac{1}{3}",
        "0.33",
        "0.33 is not 1/3 (the nasty cases say so too)",
    ),
    ("math-verify's own tests", "$(\\frac{3}{5},\\frac{8}{3}]$", "2.6667", "2.6667 is not 8/3"),
]


@dataclass(frozen=True)
class Item:
    """A response, the gold answer, whether they agree. said: the answer alone, for graders that read no text."""

    text: str
    gold: str
    equal: bool
    said: str
    tolerance: object = None


def item(text, gold, equal, tolerance=None):
    return Item(text, gold, bool(equal), answers.final_answer(answers.strip_thought(text) or "") or "", tolerance)


def pair(pred, gold, equal, tolerance=None):
    return Item(f"\\boxed{{{pred}}}", gold, bool(equal), pred, tolerance)


def rows(file):
    return [json.loads(line) for line in file.open(encoding="utf-8")]


def own(golds):
    return [pair(gold, gold, True) for gold in golds]


def shifted(golds):
    """The next problem's answer, which is wrong unless it is the same text."""
    return [pair(b, a, False) for a, b in itertools.pairwise(golds) if a.strip() != b.strip()]


def corpora(data):
    """{name: [Item]}"""
    pairs = data / "grader_pairs"
    math500, olympiad = (
        rows(data / "math500/test.jsonl"),
        rows(data / "olympiadbench_math_en/OE_TO_maths_en_COMP.jsonl"),
    )
    golds = {"MATH-500": [r["answer"] for r in math500], "Olympiad": [r["final_answer"][0] for r in olympiad]}
    tolerance = {row["gold"]: row["precision"] for row in rows(pairs / "olympiadbench_scoring_examples.jsonl")}
    tolerance = {gold: json.loads(t) if isinstance(t, str) else t for gold, t in tolerance.items()}
    return {
        "GSM8K solutions": [
            item(s["solution"], row["ground_truth"].rpartition("A:")[2].strip(), s["is_correct"])
            for row in rows(data / "gsm8k/example_model_solutions.jsonl")
            for s in row.values()
            if isinstance(s, dict)
        ],
        "MATH-500, own answers": own(golds["MATH-500"]),
        "MATH-500, own solutions": [item(r["solution"], r["answer"], True) for r in math500],
        "MATH-500, next answers": shifted(golds["MATH-500"]),
        "Olympiad, own answers": own(golds["Olympiad"]),
        "Olympiad, next answers": shifted(golds["Olympiad"]),
        "Olympiad, several answers": [
            pair(r["pred"], r["gold"], r["equal"]) for r in rows(pairs / "olympiadbench_multi_answer_derived.jsonl")
        ],
        "Olympiad, scoring examples": [
            pair(r["pred"], r["gold"], r["equal"], tolerance[r["gold"]])
            for r in rows(pairs / "olympiadbench_scoring_examples.jsonl")
        ],
        "Qwen chains": [
            item(code, str(row["gt"]), score)
            for row in rows(data / "qwen25math_rm_maj_example/math_cot_100.jsonl")
            for code, score in zip(row["code"], row["score"], strict=True)
        ],
        "R1-distill answers": [
            pair(r["pred"], r["gold"], r["equal"]) for r in rows(pairs / "thought_anchors_r1distill_answers.jsonl")
        ],
        "MR-GSM8K": [
            item("\n".join(row["model_output_steps"]), gold, row["model_output_answer_correctness"] == "correct")
            for row in rows(data / "mr_gsm8k_subset/mr_gsm8k_subset.jsonl")
            if re.search(
                r"\d", gold := str(row["ground_truth_answer"]).split("\n")[0]
            )  # a line of a prompt follows some
        ],
        "NeMo pairs": [
            pair(r["pred"], r["gold"], r["equal"]) for r in rows(pairs / "nemo_skills_test_math_equal.jsonl")
        ],
        "inspect_ai cases": labelled(pairs / "inspect_ai_math_cases.jsonl"),
        "math-verify's own tests": labelled(pairs / "math_verify_own_tests.jsonl"),
        "nasty cases": labelled(pairs / "handmade_nasty.jsonl"),
        HANG: labelled(pairs / "handmade_hang.jsonl"),
    }


def labelled(file):
    return [item(row["pred_text"], row["gold"], row["equal"]) for row in rows(file)]


# --- graders: [Item] -> [True, False, None (does not apply) or "timeout"] ---


def ours(items):
    def one(it):
        status = answers.grade(it.text, it.gold, tolerance=it.tolerance).status
        return "timeout" if status in UNDECIDED else status == "correct"

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(one, items))


def peer(interpreter, name, items):
    """Ask bench/grading_peers.py, which the kernel ends at HARD_LIMIT; that item is a time-out then, and it goes on."""
    verdicts = []
    while len(verdicts) < len(items):
        child = subprocess.Popen(
            [interpreter, "bench/grading_peers.py", name, str(HARD_LIMIT)],
            cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        if not child.stdout.readline():
            raise RuntimeError(f"{interpreter} bench/grading_peers.py {name} did not start: try it by hand")
        for it in items[len(verdicts) :]:
            child.stdin.write(json.dumps([it.text, it.said, it.gold]) + "\n")
            child.stdin.flush()
            line = child.stdout.readline()
            verdicts.append(json.loads(line) if line else "timeout")
            if not line:
                break
        child.stdin.close()
        child.wait()
        child.stdout.close()
    return verdicts


PEERS = {"math-verify": "math_verify_answer", "math-verify, whole text": "math_verify_text"}
LM_EVAL = {
    "lm-eval is_equiv": "is_equiv",
    "lm-eval minerva": "minerva",
    "lm-eval minerva, math-verify": "minerva_math_verify",
    "lm-eval gsm8k strict": "gsm8k_strict",
    "lm-eval gsm8k flexible": "gsm8k_flexible",
}


def counts(items, verdicts):
    """(right answers rejected, wrong ones accepted, time-outs), or None if the grader is not for such answers."""
    if None in verdicts:
        return None
    judged = list(zip(items, verdicts, strict=True))
    accepted = [(it, v is True) for it, v in judged]
    rejects = sum(it.equal and not yes for it, yes in accepted)
    return rejects, sum(yes and not it.equal for it, yes in accepted), verdicts.count("timeout")


def cell(found):
    if found is None:
        return None
    return f"{found[0]} / {found[1]}" + (f" ({found[2]} timed out)" if found[2] else "")


def cpu_seconds():
    """Processor time so far of this process and of the idle workers of grading/answers.py."""
    tick = os.sysconf("SC_CLK_TCK")
    fields = [Path(f"/proc/{w.pid}/stat").read_text().rpartition(")")[2].split() for w in answers._WORKERS.idle]
    return time.process_time() + sum(int(f[11]) + int(f[12]) for f in fields) / tick


def disputed(corpus, it):
    return any(corpus == c and it.gold.startswith(gold) and part in it.text for c, gold, part, _ in DISPUTED)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--lm-eval", metavar="PYTHON", help="an interpreter with lm-eval[math]")
    parser.add_argument("--corpora", nargs="+", default=[""], help="only those whose name contains one of these words")
    parser.add_argument("--alone", action="store_true", help="ours only")
    parser.add_argument("--errors", action="store_true", help="print the items where ours differs from the label")
    args = parser.parse_args()
    if not args.data.is_dir():
        sys.exit(f"no labelled answers in {args.data}: --data FOLDER")
    chosen = {
        name: its for name, its in corpora(args.data).items() if any(c.lower() in name.lower() for c in args.corpora)
    }
    print(environment_line("math-verify", "sympy"))
    if not args.lm_eval:
        print("lm-evaluation-harness: not measured (--lm-eval PYTHON)")

    verdicts, seconds, cpu = {}, 0.0, 0.0
    ours([pair("\\sqrt{8}", "2\\sqrt{2}", True)] * 2)  # starting the workers is not grading
    for name in sorted(chosen, key=lambda name: name == HANG):
        began, used = time.perf_counter(), cpu_seconds()
        verdicts[name] = {"ours": ours(chosen[name])}
        if name != HANG:
            seconds, cpu = seconds + time.perf_counter() - began, cpu + cpu_seconds() - used

    asked = {} if args.alone else {label: (sys.executable, name) for label, name in PEERS.items()}
    if args.lm_eval and not args.alone:
        asked |= {label: (args.lm_eval, name) for label, name in LM_EVAL.items()}
    jobs = list(itertools.product(chosen, asked))
    with ThreadPoolExecutor(2) as pool:
        done = pool.map(lambda job: peer(*asked[job[1]], chosen[job[0]]), jobs)
    for (name, label), found in zip(jobs, done, strict=True):
        verdicts[name][label] = found

    print("\nRight answers rejected / wrong ones accepted:\n")
    lines, worse = [], []
    for name, items in chosen.items():
        found = {label: counts(items, given) for label, given in verdicts[name].items()}
        lines.append({"corpus": name, "items": len(items)} | {label: cell(f) for label, f in found.items()})
        best = min((f[0] + f[1] for f in found.values() if f), default=0)
        if sum(found["ours"][:2]) > best:
            worse.append(name)
    print(table(lines))
    print(f"\nMore errors than the best of the others on: {', '.join(worse) or 'none'}.")
    number = sum(len(items) for name, items in chosen.items() if name != HANG)
    if number:
        speed = f"{number / seconds:.0f} a second on 2 threads, {number / cpu:.0f} per second of CPU time"
        print(f"Ours: {number} answers in {seconds:.1f} s: {speed}, load {os.getloadavg()[0]:.1f}.")
    print("\nCounted as labelled above, and left so on purpose:\n")
    print(table([{"corpus": c, "gold": g, "response": p.replace("\n", " "), "why": w} for c, g, p, w in DISPUTED]))
    if args.errors:
        for name, items in chosen.items():
            for it, said in zip(items, verdicts[name]["ours"], strict=True):
                if (said is True) != it.equal and not disputed(name, it):
                    why = answers.grade(it.text, it.gold, tolerance=it.tolerance)
                    print(json.dumps([name, {"gold": it.gold, "text": it.text[-300:], "label": it.equal}, repr(why)]))


if __name__ == "__main__":
    main()
