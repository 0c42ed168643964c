"""Problems that are also in a benchmark, by graded overlap: the share of the benchmark problem's 8-grams found in them.

One shared 8-gram proves nothing: hundreds of problems share a phrase such as "Find the number of ordered pairs of
integers such that". So the share counts: data/sources.py leaves a problem out that has at least `overlap` of a
benchmark problem's 8-grams. OUT.overlaps.jsonl lists all such pairs, and near misses, with their share, for a person.

The benchmarks' 8-grams are indexed, and the problems read one by one: time is linear in both.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path

from data.records import write_jsonl
from data.rows import iter_rows
from errors import UserError

N = 8
STOCK = 10  # an 8-gram that more benchmark problems have is a stock phrase
LISTED = 0.3  # near misses with at least this share are listed
TEXT_KEYS = ("problem", "question", "question_content", "prompt")
TOKEN = re.compile(r"[^\W\d_]+|\d+|[^\w\s$\\{},.;:!?'\"()\[\]*`~]")
TYPOGRAPHY = re.compile(r"\\(?:[dtc](?=frac)|(?:left|right|displaystyle|text|mathrm|mathbf|quad)(?![a-zA-Z]))")


class Benchmarks:
    """The problems of benchmark files by their 8-grams (by all of their words, where there are fewer).

    An 8-gram that more than STOCK of them have says nothing, so it counts on neither side. Raises UserError for a row
    without a problem.
    """

    def __init__(self, files: Iterable[str | Path]):
        # the problems by number: where each is from, its text, its count of 8-grams; and who has an 8-gram
        self.names, self.texts, self.sizes = [], [], []
        self.having = defaultdict(list)
        self.near = []
        for path in files:
            for number, (where, row) in enumerate(iter_rows(path), 1):
                text = question_of(row, where)
                grams = grams_of(text)
                for gram in grams:
                    self.having[gram].append(len(self.names))
                self.names.append(("/".join(Path(path).parts[-2:]), row.get("id", row.get("unique_id", number))))
                self.texts.append(text)
                self.sizes.append(len(grams))

        # stock phrases go
        for gram in [gram for gram, items in self.having.items() if len(items) > STOCK]:
            for item in self.having.pop(gram):
                self.sizes[item] -= 1
        self.best = [0.0] * len(self.names)

    def overlaps(self, id: str, text: str, threshold: float) -> list[dict]:
        """Find what of the benchmarks a problem repeats, by a share of at least `threshold`.

        Returns [{"id", "benchmark", "benchmark_id", "share", …}], the largest share first. Remembers the best share of
        each benchmark problem, and the nearest miss of each problem if it is at least LISTED.
        """
        if not self.names:
            return []

        # how many 8-grams it shares with each benchmark problem, of how many
        shared = Counter(item for gram in grams_of(text) for item in self.having.get(gram, ()))
        pairs = []
        for item, count in shared.items():
            share = count / self.sizes[item]
            self.best[item] = max(self.best[item], share)
            if share >= min(LISTED, threshold):
                name, number = self.names[item]
                pairs.append({"id": id, "benchmark": name, "benchmark_id": number, "share": round(share, 3),
                              "problem": text, "benchmark_problem": self.texts[item]})  # fmt: skip

        # what counts as a repetition, and else the nearest miss
        pairs.sort(key=lambda pair: -pair["share"])
        found = [pair for pair in pairs if pair["share"] >= threshold]
        if pairs and not found:
            self.near.append(pairs[0])
        return found


def grams_of(text: str) -> set[int]:
    """Hash the 8-grams of a text (an eighth of the memory of texts); of a shorter text all its tokens together, a hash
    that only an equal text has. Tokens are words, numbers and operators in lower case: no punctuation, and no LaTeX
    that is only typography."""
    tokens = TOKEN.findall(TYPOGRAPHY.sub(" ", text).lower())
    if len(tokens) < N:
        return {hash((*tokens, None))} if tokens else set()
    return {hash(tuple(tokens[i : i + N])) for i in range(len(tokens) - N + 1)}


def question_of(row: dict, where: str) -> str:
    """Return the problem text of a row, with its options (many share a stem such as "Which of these is true?").
    Raises UserError if there is none; `where` names the row in the message."""
    text = next((row[key] for key in TEXT_KEYS if row.get(key)), None)
    if not isinstance(text, str):
        raise UserError(f"{where}: a problem needs one of the keys {', '.join(TEXT_KEYS)}")
    return "\n".join([text, *map(str, row.get("choices") or ())])


def write_overlaps(out: str, flagged: list[dict], benchmarks: Benchmarks) -> None:
    """Write OUT.overlaps.jsonl, and print for each benchmark how many of its problems share anything, or are repeated.

    flagged: what `Benchmarks.overlaps` returned, all problems together.
    """
    path = Path(f"{out}.overlaps.jsonl")
    pairs = [pair | {"left_out": True} for pair in flagged] + [pair | {"left_out": False} for pair in benchmarks.near]
    write_jsonl(path, sorted(pairs, key=lambda pair: -pair["share"]))
    for name in dict.fromkeys(name for name, _ in benchmarks.names):
        best = [share for (of, _), share in zip(benchmarks.names, benchmarks.best, strict=True) if of == name]
        repeated = len({pair["benchmark_id"] for pair in flagged if pair["benchmark"] == name})
        print(
            f"  {name}: {sum(share > 0 for share in best)} of {len(best)} problems share an {N}-gram, "
            f"{repeated} are repeated (share ≥ the threshold); pairs in {path}"
        )
