"""Problems that are also in a benchmark, by graded overlap: the share of the benchmark problem's 8-grams found in them.

    python -m data.decontaminate problems=problems/bespoke.jsonl out=problems/clean.jsonl \\
        against='[benchmarks/math500.jsonl, benchmarks/aime2024.jsonl]'

Any shared 8-gram is no sign: stock phrases ("Find the number of ordered pairs of integers such that") are shared by
hundreds. So every benchmark problem is graded by its best match, a problem is left out from `overlap` on, and
OUT.overlaps.jsonl lists all such pairs, and the near misses, with their share, for a person to look at.

The index holds the benchmarks' 8-grams, problems stream past it: time is linear in both.
"""

import re
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

from data.records import iter_jsonl, write_jsonl
from errors import UserError

N = 8
STOCK = 10  # benchmark problems
LISTED = 0.3  # share from which on a near miss is listed
TEXT_KEYS = ("problem", "question", "question_content", "prompt")
TOKEN = re.compile(r"[^\W\d_]+|\d+|[^\w\s$\\{},.;:!?'\"()\[\]*`~]")
TYPOGRAPHY = re.compile(r"\\(?:[dtc](?=frac)|(?:left|right|displaystyle|text|mathrm|mathbf|quad)(?![a-zA-Z]))")


@dataclass
class Config:
    problems: str
    """JSON Lines with `problem` (or `prompt`, for pairs)."""
    against: list[str]
    """Benchmark files, JSON Lines with `problem` or `question`."""
    out: str
    """The problems that stay; OUT.overlaps.jsonl lists what was found."""
    overlap: float = 0.6
    """Share of a benchmark problem's 8-grams from which on a problem counts as the same."""


def main(cfg):
    benchmarks, overlaps, total, dropped = Benchmarks(cfg.against), [], 0, Counter()

    def kept():
        nonlocal total
        for number, row in iter_jsonl(cfg.problems):
            total += 1
            text = question_of(row, f"{cfg.problems}:{number}")
            found = benchmarks.overlaps(str(row.get("id", number)), text, cfg.overlap)
            if found:
                overlaps.extend(found)
                dropped[found[0]["benchmark"]] += 1
            else:
                yield row

    write_jsonl(cfg.out, kept())
    print(f"{total - dropped.total()} of {total} problems in {cfg.out}; left out {dict(dropped) or 'none'}")
    write_overlaps(cfg.out, overlaps, benchmarks)


class Benchmarks:
    """Benchmark problems by their 8-grams (by all of their words, where there are fewer). An 8-gram that over STOCK
    of them have says nothing, so it counts on neither side."""

    def __init__(self, files):
        self.names, self.texts, self.sizes = [], [], []
        self.having = defaultdict(list)  # 8-gram -> benchmark problems
        self.near = []
        for path in files:
            for number, row in iter_jsonl(path):
                text = question_of(row, f"{path}:{number}")
                grams = grams_of(text)
                for gram in grams:
                    self.having[gram].append(len(self.names))
                self.names.append(("/".join(Path(path).parts[-2:]), row.get("id", row.get("unique_id", number))))
                self.texts.append(text)
                self.sizes.append(len(grams))
        for gram in [gram for gram, items in self.having.items() if len(items) > STOCK]:
            for item in self.having.pop(gram):
                self.sizes[item] -= 1
        self.best = [0.0] * len(self.names)

    def overlaps(self, id, text, threshold):
        """What of the benchmarks this problem repeats: [{"id", "benchmark", "benchmark_id", "share", …}], from
        `threshold` on, the largest share first. Remembers the best share of each benchmark problem, and the nearest
        miss of each problem from LISTED on."""
        if not self.names:
            return []
        shared = Counter(item for gram in grams_of(text) for item in self.having.get(gram, ()))
        pairs = []
        for item, count in shared.items():
            share = count / self.sizes[item]
            self.best[item] = max(self.best[item], share)
            if share >= min(LISTED, threshold):
                name, number = self.names[item]
                pairs.append({"id": id, "benchmark": name, "benchmark_id": number, "share": round(share, 3),
                              "problem": text, "benchmark_problem": self.texts[item]})  # fmt: skip
        pairs.sort(key=lambda pair: -pair["share"])
        found = [pair for pair in pairs if pair["share"] >= threshold]
        if pairs and not found:
            self.near.append(pairs[0])
        return found


def grams_of(text):
    """The set of 8-grams of a normalised text, as hashes (an eighth of the memory); of a shorter text the one hash of
    all its tokens, which only an equal text has."""
    tokens = tokens_of(text)
    if len(tokens) < N:
        return {hash((*tokens, None))} if tokens else set()
    return {hash(tuple(tokens[i : i + N])) for i in range(len(tokens) - N + 1)}


def tokens_of(text):
    """Words, numbers and operators in lower case; without punctuation, spacing and LaTeX that is only typography."""
    return TOKEN.findall(TYPOGRAPHY.sub(" ", text).lower())


def question_of(row, where):
    """The problem text of a row, with its options (stems such as "Which of these is true?" are shared by many). Raises
    UserError if there is none."""
    text = next((row[key] for key in TEXT_KEYS if row.get(key)), None)
    if isinstance(text, list):  # messages
        text = text[-1].get("content")
    if not isinstance(text, str):
        raise UserError(f"{where}: a problem needs one of the keys {', '.join(TEXT_KEYS)}")
    return "\n".join([text, *map(str, row.get("choices") or ())])


def write_overlaps(out, flagged, benchmarks):
    """OUT.overlaps.jsonl, and a line per benchmark: how many of its problems share anything, how many are repeated."""
    path = Path(f"{out}.overlaps.jsonl")
    pairs = [
        pair | {"left_out": left_out} for left_out, some in ((True, flagged), (False, benchmarks.near)) for pair in some
    ]
    write_jsonl(path, sorted(pairs, key=lambda pair: -pair["share"]))
    for name in dict.fromkeys(name for name, _ in benchmarks.names):
        best = [share for (of, _), share in zip(benchmarks.names, benchmarks.best, strict=True) if of == name]
        repeated = len({pair["benchmark_id"] for pair in flagged if pair["benchmark"] == name})
        print(
            f"  {name}: {sum(share > 0 for share in best)} of {len(best)} problems share an {N}-gram, "
            f"{repeated} are repeated (share ≥ the threshold); pairs in {path}"
        )


if __name__ == "__main__":
    from config import run_cli

    run_cli(main, Config, __doc__)
