"""evaluate.py in process: one line for input that cannot be meant or is damaged; whose speed the tables show."""

import json
from types import SimpleNamespace

import pytest

import evaluate
from config import load
from errors import UserError
from evals.assembly import Evaluation
from evals.models import Place


def said(folder, *words):
    """The one line of a run that must fail."""
    file = folder / "sums.jsonl"
    if not file.exists():
        file.write_text(json.dumps({"id": "a", "problem": "1+1?", "answer": "2"}) + "\n")
    fixed = [f"out={folder}/out", "models.base=no/model", f"benchmarks.sums.file={file}", "--render-only"]
    with pytest.raises(UserError) as error:
        evaluate.main(load(evaluate.Config, [*fixed, *words]))
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["samples=0"], "config key samples must be at least 1, not 0"),
        (["benchmarks.sums.samples=0"], "config key benchmarks.sums.samples must be at least 1, not 0"),
        (["benchmarks.sums.max_new_tokens=0"], "config key benchmarks.sums.max_new_tokens must be at least 1, not 0"),
        (["instruction=Solve it."], "config key instruction must be text with {problem}"),
        (
            ["benchmarks.sums.instruction=Solve it."],
            "key benchmarks.sums.instruction must be text with {problem}",
        ),
        (["tables={a/b: {columns: {A: base}}}"], "tables.a/b: the name is a part of a file's name"),
        (["tables={t: {columns: {A: nobody}}}"], "column A shows model 'nobody', which is not in models"),
        (["samples=4"], "4 samples of sums at temperature 0 would be one answer 4 times"),
        (["models.base=endpoint:other"], "there is no endpoints.other (there is: none)"),
        (["endpoints.e.base_url=localhost:8000", "endpoints.e.model=m"], "must be an http(s) address"),
        (["models.base=/no/such/model", "render_only=false"], "no such model folder: base (/no/such/model)"),
        (["models.base=no/hub", "render_only=false"], "no model folder no/hub"),
        (["benchmarks.sums.file=nothing.jsonl", "render_only=false"], "no such file: nothing.jsonl"),
    ],
)
def test_keys_that_cannot_be_meant(tmp_path, words, message):
    assert message in said(tmp_path, *words)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("key", ["out", "report"])
def test_a_file_where_a_folder_should_be(tmp_path, key):
    (tmp_path / "file").write_text("mine")
    assert "file is a file; set another folder" in said(tmp_path, f"{key}={tmp_path}/file")
    assert "file is a file; set another folder" in said(tmp_path, f"{key}={tmp_path}/file/below")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("text", ['{"folders": {', "[]", '{"folders": 3, "speed": {}}', "\x00"])
def test_a_damaged_models_json(tmp_path, text):
    cfg = load(evaluate.Config, [f"out={tmp_path}/out", "models.base=no/model", "benchmarks.sums.file=x"])
    evaluate.claim_output(cfg, tmp_path / "out")
    (tmp_path / "out/models.json").write_text(text)
    assert "models.json is damaged; delete it and run again" in said(tmp_path)


def test_half_a_surrogate_pair(tmp_path):
    (tmp_path / "sums.jsonl").write_text('{"id": "a", "problem": "\\ud83d 1+1?", "answer": "2"}\n')
    assert "sums.jsonl:1: problem holds half a surrogate pair" in said(tmp_path, "render_only=false")


def test_speeds_are_those_of_the_models_shown(tmp_path):
    facts = {"speed": {"models/a": [100, 2.0], "models/b": [7, 1.0]}}
    cfg = SimpleNamespace(out=str(tmp_path), report="", title="T", benchmarks={}, notes=[])
    places = {"A": {"": Place("models/a")}, "S": {"": Place("served")}}
    run = Evaluation({}, places, [], [], generations={}, grades={}, grade_keys={})
    evaluate.render(cfg, {"t": evaluate.TableConfig(columns={"A": "A", "S": "S"})}, run, facts)
    for name in ("table.md", "table.html"):
        text = (tmp_path / name).read_text()
        assert "models/a" in text and "50 tokens/s" in text and "models/b" not in text


def test_only_the_papers_tables_do_without_a_benchmark(tmp_path):
    words = [f"out={tmp_path}/out", "models.base=no/model", "benchmarks={}", "--render-only"]
    with pytest.raises(UserError, match="config key benchmarks must not be empty"):
        evaluate.main(load(evaluate.Config, words))
    assert not (tmp_path / "out").exists()
