"""Bad input to `python build_crv.py`: one line, no traceback, exit status 2."""

import json
import subprocess
import sys

import pytest

import build_crv
from config import run_cli
from tests.support.crv_cli import check_refused, command, run, write_problems

GOOD = {"id": "a", "problem": "1 + 1?", "answer": "2", "reasoning": "1 + 1 = 2"}


@pytest.fixture
def cli(monkeypatch, capsys):
    """The command line as `run` has it, in this process: starting Python for each case would take a minute."""

    def call(*args):
        monkeypatch.setattr(sys, "argv", command(*args)[1:])
        with pytest.raises(SystemExit) as end:
            run_cli(build_crv.main, build_crv.Config, build_crv.__doc__)
        return subprocess.CompletedProcess(args, end.value.code, *capsys.readouterr())

    return call


def jsonl(*objects):
    return "".join(json.dumps(o) + "\n" for o in objects)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (jsonl(GOOD) + '{"id": "b", \n', r"problems\.jsonl:2: not valid JSON"),
        (jsonl(GOOD, [1]), r"problems\.jsonl:2: a record must be a JSON object"),
        (jsonl({k: v for k, v in GOOD.items() if k != "reasoning"}), r"problems\.jsonl:1: .*lacks reasoning"),
        (jsonl(GOOD, GOOD), r"problems\.jsonl:2: duplicate id 'a', first seen at .*problems\.jsonl:1"),
        (jsonl(GOOD | {"answer": "  "}), r"problems\.jsonl:1: answer must be a string that is not empty"),
        (jsonl(GOOD | {"answer": 2}), r"problems\.jsonl:1: answer must be a string"),
        (jsonl(GOOD | {"domain": []}), r"problems\.jsonl:1: domain must be a string, not list"),
        (jsonl(GOOD | {"domain": {"math": 1}}), r"problems\.jsonl:1: domain must be a string, not dict"),
        (jsonl(GOOD | {"solution": ["so 2"]}), r"problems\.jsonl:1: solution must be a string, not list"),
        ('{"id": "a", "problem": "x", "answer": "2", "reasoning": "so \\boxed{2}"}\n', r"backspace .*'oxed"),
        ('{"id": "a", "problem": "x", "answer": "\\frac12", "reasoning": "so"}\n', r"form feed .*'rac12"),
        (jsonl(GOOD | {"reasoning": "so \ud83d"}), r"problems\.jsonl:1: reasoning holds half a surrogate pair"),
        ("", r"holds no records"),
        (None, r"no such file: .*problems\.jsonl"),
    ],
)
def test_bad_problems(tmp_path, cli, text, message):
    path = tmp_path / "problems.jsonl"
    if text is not None:
        path.write_text(text)
    check_refused(cli(path, tmp_path / "out", "http://127.0.0.1:9/v1"), message)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["recritiqe=retry"], r"unknown config key recritiqe; did you mean recritique\?"),
        (
            ["endpoints.teacher.base_urll=x"],
            r"unknown config key endpoints\.teacher\.base_urll; did you mean .*base_url",
        ),
        (["max_rounds=three"], r"max_rounds must be a whole number"),
        (["max_rounds=0"], r"max_rounds must be at least 1"),
        (["stages=rc"], r"stages must be one of crv, cr, c, not 'rc'"),
        (["check_incorrect=perhaps"], r"check_incorrect must be true or false"),
        (
            ["agents.verifier=small"],
            r"agents\.verifier is small, but there is no endpoints\.small \(there is: teacher\)",
        ),
        *(
            ([f"endpoints.teacher.base_url={url}"], r"base_url must be an http\(s\) address")
            for url in (
                "localhost:8000",
                "http:///v1",
                "http://a b/v1",
                "http://a:99999/v1",
                "http://[::1/v1",
                "http://ü..b/v1",
                "http://a..b/v1",
                "http://a:0/v1",
            )
        ),
        *(
            ([f"endpoints.teacher.{key}=0"], rf"{key} must be (at least 1|above 0)")
            for key in ("concurrency", "requests_per_minute", "tokens_per_minute", "timeout")
        ),
        (["max_cost=0", "endpoints.teacher.price_prompt=1"], r"max_cost must be above 0"),
        (["max_cost=5"], r"max_cost=5 would stop nothing, as no endpoint has a price"),
        (["endpoints.teacher.api_key_env=NO_SUCH_KEY"], r"\$NO_SUCH_KEY, which is not set"),
        (["prompts_dir=/nowhere"], r"/nowhere/critic\.txt"),
        (["instruction=Solve it"], r"instruction must be text with \{problem\}"),
    ],
)
def test_bad_configuration(tmp_path, cli, words, message):
    problems = write_problems(tmp_path / "problems.jsonl", 1)
    check_refused(cli(problems, tmp_path / "out", "http://127.0.0.1:9/v1", *words), message)


def test_nobody_at_the_address(tmp_path):
    problems = write_problems(tmp_path / "problems.jsonl", 30)
    check_refused(
        run(problems, tmp_path / "out", "http://127.0.0.1:9/v1"), r"http://127\.0\.0\.1:9/v1 .*3 tries", lines=4
    )
