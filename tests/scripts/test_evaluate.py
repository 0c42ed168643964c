"""evaluate.py through its command line, on tiny models."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from pocket.tiny import make_model
from tests.support.evaluate_cli import ROOT, error_line, kill_at, lines, run
from tests.support.tiny import sums


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return [make_model(folder / f"m{seed}", seed=seed) for seed in range(3)]


@pytest.fixture(scope="module")
def problems(tmp_path_factory):
    file = tmp_path_factory.mktemp("problems") / "test.jsonl"
    rows = [
        {"id": pid, "problem": prompt[0]["content"], "answer": answer, "task": "even" if i % 2 == 0 else "odd"}
        for i, (pid, prompt, _, _, _, answer) in enumerate(sums(10))
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def words(out, models, problems, *more):
    named = [f"models.{name}={path}" for name, path in zip(("base", "sft"), models, strict=False)]
    fixed = ["max_new_tokens=24", "batch_size=4", f"benchmarks.sums.file={problems}"]
    return [sys.executable, "evaluate.py", f"out={out}", *named, *fixed, *more]


def test_whole_run_then_nothing_to_do_then_render_only(tmp_path, models, problems):
    out = tmp_path / "eval"
    done = run(*words(out, models, problems, "benchmarks.sums.split=task", "notes=[scripted teacher]"))
    assert done.returncode == 0, done.stderr
    assert len(lines(out / "generations.jsonl")) == len(lines(out / "grades.jsonl")) == 20
    assert "|  | base | sft |" in done.stdout
    for row in ("sums", "sums: even", "sums: odd"):
        assert f"| {row} | " in done.stdout
    assert "(0/10) [0.0, 27.8]" in done.stdout or "/10)" in done.stdout
    assert "> scripted teacher" in done.stdout
    assert {"table.md", "table.html", "table.png", "config.yaml"} <= {file.name for file in out.iterdir()}

    before = (out / "generations.jsonl").stat().st_mtime_ns, (out / "table.md").read_text()
    again = run(*words(out, models, problems, "benchmarks.sums.split=task", "notes=[scripted teacher]"))
    assert again.returncode == 0
    assert "to generate" not in again.stderr
    assert (out / "table.md").read_text() == before[1]
    assert len(lines(out / "generations.jsonl")) == 20

    (out / "table.md").unlink()
    gone = [path + "-moved-away" for path in models]
    for path, moved in zip(models, gone, strict=True):
        os.rename(path, moved)
    try:
        rendered = run(
            *words(out, models, problems, "benchmarks.sums.split=task", "notes=[scripted teacher]", "--render-only")
        )
    finally:
        for path, moved in zip(models, gone, strict=True):
            os.rename(moved, path)
    assert rendered.returncode == 0, rendered.stderr
    assert (out / "table.md").read_text() == before[1]


@pytest.mark.slow
def test_killed_and_run_again_equals_never_killed(tmp_path, models, problems):
    whole = tmp_path / "whole"
    assert run(*words(whole, models, problems, "max_new_tokens=400")).returncode == 0

    out = tmp_path / "killed"
    command = words(out, models, problems, "max_new_tokens=400")
    file = out / "generations.jsonl"
    kill_at(command, file, 2)
    with file.open("ab") as torn:
        torn.write(b'{"key": "cut in the mid')  # what a kill in the middle of a write leaves
    kept = file.read_bytes().count(b"\n")
    assert 2 <= kept < 20

    done = run(*command)
    assert done.returncode == 0, done.stderr
    assert len(lines(file)) == 20
    texts = [{row["key"]: row["text"] for row in lines(folder / "generations.jsonl")} for folder in (whole, out)]
    assert texts[0] == texts[1]
    grades = [{row["key"]: row["status"] for row in lines(folder / "grades.jsonl")} for folder in (whole, out)]
    assert grades[0] == grades[1]


def test_seeds_and_several_tables(tmp_path, models, problems):
    for seed in range(3):
        (tmp_path / f"seed{seed}").mkdir()
        os.symlink(models[seed], tmp_path / f"seed{seed}" / "sft")
    config = tmp_path / "eval.yaml"
    config.write_text(
        f"""
out: {tmp_path}/eval
report: {tmp_path}/report
models: {{base: {models[0]}, sft: "{{run}}/sft"}}
runs: {{"0": {tmp_path}/seed0, "1": {tmp_path}/seed1, "2": {tmp_path}/seed2}}
benchmarks: {{sums: {{file: {problems}, limit: 6}}}}
max_new_tokens: 8
tables:
  table2: {{title: Methods, columns: {{base: base, SFT: sft}}}}
  table6: {{title: Ablation, columns: {{SFT: sft}}}}
"""
    )
    done = run(sys.executable, "evaluate.py", "--config", str(config))
    assert done.returncode == 0, done.stderr
    assert "## Methods" in done.stdout and "## Ablation" in done.stdout
    assert "/6)" in done.stdout and "/18)" in done.stdout and "seeds " in done.stdout
    assert len(lines(tmp_path / "eval" / "generations.jsonl")) == 18  # base is seed 0's model: not generated twice
    assert {file.name for file in (tmp_path / "report").iterdir()} == {
        "table.md",
        "table.html",
        "table.tex",
        "table.png",
        "table-table6.png",
        "samples.html",
    }


def test_render_only_reads_no_weights_and_writes_nothing_but_the_report(tmp_path, models, problems):
    out = tmp_path / "eval"
    unborn = error_line(run(*words(out, models[:1], problems, "--render-only")))
    assert "holds no evaluation yet; run it without --render-only, or set report" in unborn and not out.exists()
    assert run(*words(out, models[:1], problems, "max_new_tokens=4")).returncode == 0
    (out / "models.json").unlink()
    before = {file.name: file.read_bytes() for file in out.iterdir()}
    rendered = run(*words(out, models[:1], problems, "max_new_tokens=4", f"report={tmp_path}/report", "--render-only"))
    assert rendered.returncode == 0, rendered.stderr
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before
    assert f"no cells of {models[0]}" in rendered.stderr and (tmp_path / "report" / "table.md").exists()


def test_a_hub_model_is_graded_where_it_is_not(tmp_path, models, problems):
    """Generated on the machine with the models, graded on another one: a hub id is known by its name on both."""
    hub, out = tmp_path / "hub", tmp_path / "eval"
    (hub / "models--own--tiny" / "refs").mkdir(parents=True)
    (hub / "models--own--tiny" / "refs" / "main").write_text("abc")
    shutil.copytree(models[0], hub / "models--own--tiny" / "snapshots" / "abc")
    env = os.environ | {"HF_HUB_CACHE": str(hub), "HF_HUB_OFFLINE": "1"}
    command = words(out, ["own/tiny"], problems)
    done = run(*command, "--generate-only", env=env, warm=False)
    assert done.returncode == 0, done.stderr
    assert {row["model"] for row in lines(out / "generations.jsonl")} == {"own/tiny"}
    shutil.rmtree(hub)
    done = run(*command, "--grade-only", "models.never=own/other", env=env, warm=False)
    assert done.returncode == 0, done.stderr
    assert "/10)" in done.stdout and "no cells of own/other" in done.stderr
    assert "Generated: own/tiny " in (out / "table.md").read_text()
    assert not any("snapshots" in file.read_text() for file in out.iterdir() if file.suffix != ".png")


def test_the_gold_answer_and_the_grader_are_not_part_of_a_generation(tmp_path, models, problems):
    out = tmp_path / "eval"
    rows = lines(problems)
    file = tmp_path / "test.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert run(*words(out, models[:1], file)).returncode == 0
    file.write_text("".join(json.dumps(row | {"answer": "7"}) + "\n" for row in rows))
    done = run(*words(out, models[:1], file))
    assert done.returncode == 0 and "to generate" not in done.stderr
    assert len(lines(out / "generations.jsonl")) == 10 and len(lines(out / "grades.jsonl")) == 20


def test_help_explains_every_key_and_loads_nothing_that_takes_long():
    words = [sys.executable, "-X", "importtime", "evaluate.py", "--help"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "evals.tables" in loaded and not loaded & {"torch", "transformers", "matplotlib", "huggingface_hub", "sympy"}
    for key in ("max_new_tokens", "benchmarks.NAME.file", "tables.NAME.against", "runs", "instruction", "render_only"):
        assert key in done.stdout


def test_a_model_that_no_table_shows_is_named_and_not_evaluated(tmp_path, models, problems):
    out = tmp_path / "eval"
    done = run(*words(out, models, problems, "tables.t.columns.A=base", "max_new_tokens=4"))
    assert done.returncode == 0 and "not evaluated, because no table shows them: sft\n" in done.stderr
    assert {row["model"] for row in lines(out / "generations.jsonl")} == {models[0]}
    # keys of an older version are no other configuration
    with (out / "config.yaml").open("a") as file:
        file.write("backend: auto\n")
    again = run(*words(out, models, problems, "tables.t.columns.A=base", "max_new_tokens=4"))
    assert again.returncode == 0 and "to generate" not in again.stderr


def test_models_that_would_answer_with_something_else(tmp_path, models, problems):
    """Refused before anything is generated or written, by the guard that training has."""
    adapter, pickled, chunked = (shutil.copytree(models[0], tmp_path / name) for name in ("adapter", "bin", "chunked"))
    (adapter / "adapter_config.json").write_text("{}")
    (adapter / "config.json").unlink()
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    config = json.loads((chunked / "config.json").read_text())
    config["layer_types"] = ["full_attention", "chunked_attention"]
    (chunked / "config.json").write_text(json.dumps(config))
    for folder, said in ((adapter, "holds an adapter"), (pickled, "save the model once more"), (chunked, "chunked")):
        assert said in error_line(run(*words(tmp_path / "out", [folder], problems)))
        assert not list(tmp_path.glob("out/generations*"))


def test_bad_input(tmp_path, models, problems):
    out = tmp_path / "eval"
    assert "did you mean max_new_tokens" in error_line(run(*words(out, models, problems, "max_new_token=3")))
    assert not out.exists(), "bad input must leave no folder that refuses the corrected command"
    assert run(*words(out, models[:1], problems, "max_new_tokens=4")).returncode == 0
    other = error_line(run(*words(out, models[:1], problems, "max_new_tokens=5")))
    assert "another configuration (max_new_tokens: 4 there, 5 now)" in other
