"""LiveCodeBench V2: competition problems, answered with a Python program that hidden tests decide on.

Conventions, and where they are from (github.com/LiveCodeBench/LiveCodeBench, 28fef95):

problems    livecodebench/code_generation_lite, release_v2 = test.jsonl + test2.jsonl, 511 problems of May 2023 to May
            2024. The files are read themselves: they come with a loading script, which `datasets` no longer runs.
prompt      lcb_runner/prompts/code_generation.py, as for DeepSeek-R1: its role line opens the user turn. Problems of
            LeetCode show their starter code; the others are told to read stdin and write stdout.
answer      the last fenced block after the thought, a Python one before any other (there: the last of any kind).
tests       public and hidden ones, all of them, 6 s each (there: of the clock; here: of processor time).
correct     is what is right by the *exact* verdict: lines without surrounding blanks, numbers by value; a function's
            result as JSON. LiveCodeBench forgives no rounding, so an answer that is right only within 1e-6 is `wrong`
            with detail "tolerant only", and may be counted by those who think otherwise.

Programs run in grading/programs.py. Hidden tests take gigabytes once unpacked, so a problem knows where its line is,
and reads its tests when it is graded.
"""

import hashlib
import json
import zlib
from collections.abc import Iterable
from dataclasses import dataclass

from huggingface_hub import hf_hub_download

from data.rows import an_object, parsed
from errors import UserError, one_line
from evals.benchmarks import common
from evals.benchmarks.common import KINDS, BenchmarkConfig, Problem
from grading import Grade, hidden_tests
from grading.extraction import extract_code, strip_thought
from grading.programs import Limits, check_tests, run_tests

PROGRAMS = True  # answers are run; of wrong ones no two are the same, so there is no vote

FILES = ("test.jsonl", "test2.jsonl")  # release_v2, of the hub's dataset
PUBLIC = "public_test_cases"
LIMITS = Limits(seconds=6.0)


def load(kind: str, name: str, cfg: BenchmarkConfig) -> list[Problem]:
    """Read all problems of the hub's files, or of cfg.file: in the hub's format, or with fn_name and extra_test_cases
    in the place of metadata and private_test_cases. Raises UserError naming file and line, and every problem without
    tests."""
    files, empty = [cfg.file] if cfg.file else _from_hub(KINDS[kind].repo, name), []

    def parse(number, texts, row, where):
        function, starter, public = _function(row, where), row.get("starter_code") or "", _cases(row, PUBLIC, where)
        if bool(starter) != bool(function):
            raise UserError(f"{where}: starter_code and the function's name go together; one of them is missing")
        if not public and not _has_hidden(row, where):
            empty.append(texts["id"])
        hidden = row.get("private_test_cases") or json.dumps(row.get("extra_test_cases"))
        content = hashlib.sha256(f"{function}{public}{hidden}".encode()).hexdigest()
        extra = {"starter_code": starter, "tests": row["tests"], "tests_sha256": content}
        return Problem(name, texts["id"], texts["question"], "", extra=extra)

    problems = common.read(kind, name, cfg, parse, (row for file in files for row in _rows(file)))
    if empty:
        raise UserError(f"{cfg.file or KINDS[kind].repo}: no tests, so nothing could be right: {', '.join(empty)}")
    return problems


@dataclass(frozen=True)
class Tests:
    """Where the tests of one problem are: file, byte at which its line begins, and file:line for messages."""

    file: str
    offset: int
    where: str

    def read(self) -> dict:
        """Return {"fn_name", "inputs", "outputs"} as grading/programs.py takes them, public ones first."""
        with open(self.file, "rb") as file:
            file.seek(self.offset)
            row = parsed(file.readline(), self.where)
        cases = _cases(row, PUBLIC, self.where) + _hidden(row, self.where)
        return as_tests(cases, _function(row, self.where), self.where)


def as_tests(cases: list[dict], function: str | None, where: str) -> dict:
    """Turn LiveCodeBench's [{"input", "output"}, …] into what grading/programs.py takes. function: its name, or None
    for stdin."""
    try:
        inputs, outputs = [case["input"] for case in cases], [case["output"] for case in cases]
        if function:  # a line of JSON for every argument
            inputs = [[json.loads(line) for line in text.split("\n")] for text in inputs]
            outputs = [json.loads(text) for text in outputs]
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise UserError(f"{where}: a test is not {{input, output}} as LiveCodeBench has them ({reason})") from None
    return {"fn_name": function, "inputs": inputs, "outputs": outputs}


# --- asking ---


def instruction(problem: Problem, prompt: str) -> str:
    """Fill in the starter code that LeetCode's problems come with; the others, which have none, have a prompt of their
    own."""
    starter = problem.extra["starter_code"]
    return prompt.replace("{starter_code}", starter) if starter else KINDS[problem.kind].prompts["stdin"]


# --- grading ---


def grade(problem: Problem, text: str, finished: bool) -> Grade:
    """Grade a program: correct | wrong | timeout of the first test that fails; no_answer and truncated as in
    grading/answers.py. detail: `exact`, `tolerant only`, or `wrong`, `error`, `timeout` with the test's number and the
    program's last words."""
    said = strip_thought(text)
    code = None if said is None else extract_code(said, finished)
    if code is None:
        return Grade("no_answer" if finished and said is not None else "truncated", None, "no finished block of code")
    tests = problem.extra["tests"].read()
    check_tests(tests, problem.extra["tests"].where)
    verdict, count = run_tests(code, tests, LIMITS), len(tests["inputs"])
    if verdict.status == "passed":
        kind = "exact" if verdict.exact else "tolerant only"
        return Grade("correct" if verdict.exact else "wrong", code, f"{kind}: {count} tests")
    words = one_line(verdict.detail)
    detail = f"{verdict.status} on test {verdict.test + 1} of {count}" + f": {words}" * bool(words)
    return Grade("timeout" if verdict.status == "timeout" else "wrong", code, detail)


def notes(isolations: Iterable[str]) -> list[str]:
    """Say what a reader of the report must know about these numbers, a line each. isolations: what the programs ran
    in."""
    where = f"programs ran in {', or '.join(isolations)}. " if isolations else ""
    return [
        f"LiveCodeBench: {where}{LIMITS.seconds:g} s of processor time and "
        f"{LIMITS.memory >> 20} MiB a test; exact verdicts count, as in its own runner."
    ]


# --- reading ---


def _from_hub(repo, name):
    try:
        return [hf_hub_download(repo, file, repo_type="dataset") for file in FILES]
    except (OSError, ValueError) as error:  # the hub's own errors are OSErrors
        reason = one_line(error, 200).rstrip(". ")
        raise UserError(
            f"benchmarks.{name}: no {repo} from the hub ({reason}); set benchmarks.{name}.file to one file with "
            f"the lines of its {' and '.join(FILES)}"
        ) from None


def _rows(path):
    """Yields (file:line, object), with its "tests" as Tests."""
    try:
        file = open(path, "rb")  # noqa: SIM115
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    with file:
        offset = 0
        for number, line in enumerate(file, 1):
            if line.strip():
                where = f"{path}:{number}"
                yield where, an_object(parsed(line, where), where) | {"tests": Tests(str(path), offset, where)}
            offset += len(line)


def _function(row, where):
    if "metadata" not in row:
        return row.get("fn_name")
    try:
        return json.loads(row["metadata"]).get("func_name")
    except (TypeError, ValueError, AttributeError):
        raise UserError(f"{where}: metadata must be a JSON object as text, not {row['metadata']!r:.80}") from None


def _cases(row, key, where):
    """A list of tests: as such, or as a JSON text."""
    cases = row.get(key)
    try:
        cases = json.loads(cases) if isinstance(cases, str) else cases
    except ValueError as error:
        raise UserError(f"{where}: {key} is not valid JSON: {error}") from None
    if not isinstance(cases, list):
        raise UserError(f"{where}: {key} must be a list of tests, not {type(cases).__name__}")
    return cases


def _has_hidden(row, where):
    """Whether a problem has hidden tests, without unpacking them."""
    if "private_test_cases" not in row:
        return bool(_cases(row, "extra_test_cases", where))
    try:
        return b'[{"' in hidden_tests.begin(row["private_test_cases"])
    except (TypeError, ValueError, zlib.error) as error:
        raise UserError(f"{where}: private_test_cases cannot be read ({error}); download the file again") from None


def _hidden(row, where):
    if "private_test_cases" not in row:
        return _cases(row, "extra_test_cases", where)
    text = hidden_tests.load_strings(row["private_test_cases"], where)
    return _cases({"private_test_cases": text}, "private_test_cases", where)
