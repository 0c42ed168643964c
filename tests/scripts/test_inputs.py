"""A run is known by all that decides its result: data, weights, code, configuration. None of it changes in silence."""

import json
import re
import shutil
import subprocess
import sys

import pytest

from data.records import write_jsonl
from errors import UserError
from model.load import load_tokenizer
from pocket.tiny import make_model
from tests.support.scripts import (
    ROOT,
    cogpo_words,
    fails,
    inside,
    metrics,
    run,
    sft_words,
    up_to_the_export,
)
from tests.support.tiny import pair_rows, sft_rows

SCRIPTS = pytest.mark.parametrize("script,words", [("train_sft.py", sft_words), ("train_cogpo.py", cogpo_words)])


@pytest.fixture
def tree(tmp_path):
    """A copy of the code, to be edited."""
    folder = tmp_path / "tree"
    for room in ("data", "losses", "model"):
        shutil.copytree(ROOT / room, folder / room, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ROOT.glob("*.py"):
        shutil.copy(file, folder)
    return folder


def edit(path, before, after):
    text = path.read_text()
    assert text.count(before) == 1
    path.write_text(text.replace(before, after))


def refused(script, words):
    with pytest.raises(UserError) as error:
        inside(script, *words)
    return str(error.value)


@pytest.mark.parametrize("script", ["train_sft.py", "train_cogpo.py"])
def test_help_and_mistyped_keys_are_answered_before_torch_loads(script):
    for words, said in ((["--help"], "optim.lr: a number, above 0"), (["epoch=1", "out=o"], "did you mean epochs?")):
        code = (
            "import runpy, sys\n"
            f"sys.argv = {[script, *words]}\n"
            "try:\n    runpy.run_path(sys.argv[0], run_name='__main__')\n"
            "finally:\n    print('torch' in sys.modules)\n"
        )
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert said in done.stdout + done.stderr and done.stdout.endswith("False\n")


@SCRIPTS
def test_a_finished_run_is_done_only_for_its_own_inputs(tmp_path, capsys, script, words):
    """The same command after the data, then after the weights changed: refused, with what changed and what to do."""
    make_rows, out = (sft_rows if words is sft_words else pair_rows), tmp_path / "o"
    make_model(tmp_path / "m")
    write_jsonl(tmp_path / "data.jsonl", make_rows(8))
    words = words(tmp_path / "m", tmp_path, out, data__file=tmp_path / "data.jsonl", epochs=1)
    inside(script, *words)
    record = json.loads((out / "run.json").read_text())
    assert {"data.file", "model.path", f"losses/{script[6:]}", script} <= record["inputs"].keys()
    inside(script, *words)
    assert f"already done: {out}/model, from the same data" in capsys.readouterr().err

    write_jsonl(tmp_path / "data.jsonl", make_rows(9))
    said = refused(script, words)
    assert f"the content of data.file has changed since {out}/model was made" in said
    assert f"set another output folder (out=…), or delete {out}" in said
    write_jsonl(tmp_path / "data.jsonl", make_rows(8))
    shutil.rmtree(tmp_path / "m")
    make_model(tmp_path / "m", seed=1)
    assert "the content of model.path has changed since" in refused(script, words)


def test_a_redone_first_phase_is_not_answered_with_the_old_second_one(tiny_qwen, files, tmp_path):
    sft = sft_words(tiny_qwen, files, tmp_path / "sft", epochs=1)
    cogpo = cogpo_words(tmp_path / "sft/model", files, tmp_path / "cogpo", epochs=1)
    inside("train_sft.py", *sft)
    inside("train_cogpo.py", *cogpo)
    shutil.rmtree(tmp_path / "sft")
    inside("train_sft.py", *sft, "seed=1")
    assert "the content of model.path has changed" in refused("train_cogpo.py", cogpo)


@SCRIPTS
def test_a_stopped_run_is_not_resumed_from_other_data(tiny_qwen, tmp_path, capsys, script, words):
    data, make_rows = tmp_path / "data.jsonl", (sft_rows if words is sft_words else pair_rows)
    write_jsonl(data, make_rows(20))
    words = words(tiny_qwen, tmp_path, tmp_path / "o", data__file=data, checkpoint__every_steps=1, epochs=1)
    up_to_the_export(script, words)
    write_jsonl(data, make_rows(19))
    assert f"the content of data.file has changed since {tmp_path}/o/checkpoints/step-" in refused(script, words)
    write_jsonl(data, make_rows(20))
    capsys.readouterr()
    inside(script, *words)
    assert re.search(r"^resuming after step (\d+) of \1$", capsys.readouterr().err, re.MULTILINE)


def test_an_edited_loss_changes_what_a_run_does_and_never_takes_over_another_run(tree, tiny_qwen, files, tmp_path):
    """The default in losses/ is the run's default, and the file is part of what the run was made from."""
    a, stopped = (cogpo_words(tiny_qwen, files, tmp_path / name, epochs=1) for name in ("a", "stopped"))
    inside("train_cogpo.py", *a)
    up_to_the_export("train_cogpo.py", stopped)
    edit(tree / "losses/cogpo.py", "BETAS = (0.1, 0.2, 0.5)", "BETAS = (0.1, 0.2, 1.5)")
    for words in (a, stopped):
        assert "the content of losses/cogpo.py has changed since" in fails("train_cogpo.py", *words, cwd=tree)
    run("train_cogpo.py", *cogpo_words(tiny_qwen, files, tmp_path / "b", epochs=1), cwd=tree)
    assert metrics(tmp_path / "a")[0]["large/beta"] == pytest.approx(0.5)
    assert metrics(tmp_path / "b")[0]["large/beta"] == pytest.approx(1.5)
    assert "loss.betas: null" in (tmp_path / "b/config.yaml").read_text()


def test_an_edited_preference_loss_leaves_a_finished_first_phase_as_it_is(tree, tiny_qwen, files, tmp_path):
    words = sft_words(tiny_qwen, files, tmp_path / "o", epochs=1)
    inside("train_sft.py", *words)
    edit(tree / "losses/cogpo.py", "BETAS = (0.1, 0.2, 0.5)", "BETAS = (0.1, 0.2, 1.5)")
    (tree / "losses/new.py").touch()
    assert "already done" in run("train_sft.py", *words, cwd=tree).stderr
    (tree / "losses/sft.py").open("a").write("# edited\n")
    assert "the content of losses/sft.py has changed since" in fails("train_sft.py", *words, cwd=tree)


def test_the_script_is_part_of_what_a_run_was_made_from(tree, tiny_qwen, files, tmp_path):
    words = sft_words(tiny_qwen, files, tmp_path / "o", epochs=1)
    inside("train_sft.py", *words)
    edit(tree / "train_sft.py", "loss.backward()", "(2 * loss).backward()")
    assert "the content of train_sft.py has changed since" in fails("train_sft.py", *words, cwd=tree)


def test_any_loss_passes_the_start_check(tree, tiny_qwen, files, tmp_path):
    """A target margin: the first loss is not ln 2, policy and reference are equal all the same."""
    edit(tree / "losses/dpo.py", "loss=-F.logsigmoid(margin - ", "loss=-F.logsigmoid(margin - 1.0 - ")
    run("train_cogpo.py", *cogpo_words(tiny_qwen, files, tmp_path / "o", epochs=1), cwd=tree)
    assert metrics(tmp_path / "o")[0]["loss"] == pytest.approx(1.3133, abs=1e-3)  # log(1 + e)


def test_an_edit_of_what_computes_the_reference_is_a_miss(tree, tiny_qwen, files, tmp_path):
    folders = tmp_path / "reference"
    for name in ("a", "b"):
        inside("train_cogpo.py", *cogpo_words(tiny_qwen, files, tmp_path / name, epochs=1, loss__name="dpo"))
        assert len(list(folders.iterdir())) == 1
    edit(tree / "model/logprobs.py", "BLOCK = 2048", "BLOCK = 1024")
    run("train_cogpo.py", *cogpo_words(tiny_qwen, files, tmp_path / "c", epochs=1), cwd=tree)
    assert len(list(folders.iterdir())) == 2


@pytest.mark.parametrize("script", ["train_sft.py", "train_cogpo.py"])
def test_ranks_with_different_data_do_not_train_together(tiny_qwen, files, tmp_path, script):
    """Copies on the disks of two machines, of which one is older."""
    words = (sft_words if script == "train_sft.py" else cogpo_words)(tiny_qwen, files, tmp_path / "o")
    for rank in (0, 1):
        folder = tmp_path / f"machine{rank}"
        folder.mkdir()
        name = "sft.jsonl" if script == "train_sft.py" else "pairs.jsonl"
        write_jsonl(folder / name, (sft_rows if script == "train_sft.py" else pair_rows)(20 - rank))
    launcher = tmp_path / "on_its_machine.py"
    launcher.write_text(
        "import os, runpy, sys\n"
        f"sys.path.insert(0, {str(ROOT)!r})\n"
        "os.chdir(f\"{sys.argv.pop(1)}{os.environ['RANK']}\")\n"
        f"sys.argv[0] = {str(ROOT / script)!r}\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    words = [word for word in words if not word.startswith("data.file=")]
    words.append(f"data.file={'sft' if script == 'train_sft.py' else 'pairs'}.jsonl")
    said = fails(launcher, tmp_path / "machine", *words, ranks=2)
    assert "error: rank 1 has another data.file than rank 0; every machine must see the same files" in said
    assert not (tmp_path / "o").exists()


def test_an_edit_of_a_loss_that_a_run_does_not_import_leaves_it_as_it_is(tree, tiny_qwen, files, tmp_path):
    words = cogpo_words(tiny_qwen, files, tmp_path / "o", epochs=1)
    inside("train_cogpo.py", *words)
    recorded = json.loads((tmp_path / "o/run.json").read_text())["inputs"]
    assert {name for name in recorded if name.startswith("losses/")} == {"losses/cogpo.py", "losses/dpo.py"}
    for name in ("simpo", "beta_dpo", "sft"):
        (tree / f"losses/{name}.py").open("a").write("# edited\n")
    assert "already done" in run("train_cogpo.py", *words, cwd=tree).stderr
    (tree / "losses/dpo.py").open("a").write("# edited\n")  # imported by cogpo.py
    assert "the content of losses/dpo.py has changed since" in fails("train_cogpo.py", *words, cwd=tree)


def test_the_files_of_a_loss_are_found_through_all_kinds_of_imports(tmp_path, monkeypatch):
    import losses
    from model.session import _files_of

    parts = {
        "a": "from .b import f",
        "b": "import losses.c\ndef f(): return 1",
        "c": "from losses import d",
        "d": "",
        "e": "",
    }
    (tmp_path / "losses").mkdir()
    for name, text in parts.items():
        (tmp_path / f"losses/{name}.py").write_text(text)
    monkeypatch.setattr(losses, "__file__", str(tmp_path / "losses/__init__.py"))
    space = {}
    exec(compile("def f(): return 1", str(tmp_path / "losses/a.py"), "exec"), space)
    assert [path.stem for path in _files_of(space["f"])] == ["a", "b", "c", "d"]


@pytest.mark.parametrize("file", ["tokenizer_config.json", "chat_template.jinja", "generation_config.json"])
def test_what_lies_beside_the_weights_is_part_of_what_a_run_was_made_from(files, tmp_path, file):
    base = tmp_path / "m"
    make_model(base)
    words = sft_words(base, files, tmp_path / "o", epochs=1)
    inside("train_sft.py", *words)
    (base / file).write_text((base / file).read_text() + "\n")
    assert f"model.path/{file}" in refused("train_sft.py", words)


@SCRIPTS
def test_a_run_that_saved_nothing_takes_a_corrected_config(tiny_qwen, files, tmp_path, script, words):
    """A rate that breaks the first updates, then a better one: nothing was learnt that could be mistaken."""
    out = tmp_path / "o"
    assert "stopped before the update" in fails(script, *words(tiny_qwen, files, out, optim__lr=1e30))
    assert (out / "config.yaml").exists() and (out / "metrics.jsonl").exists()
    inside(script, *words(tiny_qwen, files, out, epochs=1, seed=3))
    assert [row["step"] for row in metrics(out)] == list(range(len(metrics(out))))
    assert "another configuration" in refused(script, words(tiny_qwen, files, out, epochs=1))


@pytest.mark.parametrize("what", ["model.path", "model.path/config.json", "value of batch.size"])
def test_ranks_with_different_models_or_configs_do_not_train_together(files, tmp_path, what):
    for rank in (0, 1):
        folder = tmp_path / f"machine{rank}"
        make_model(folder / "m", seed=rank if what == "model.path" else 0)
        if what.endswith("config.json"):
            config = json.loads((folder / "m/config.json").read_text())
            (folder / "m/config.json").write_text(json.dumps(config | {"rms_norm_eps": 10.0 ** -(6 - rank)}))
        (folder / "c.yaml").write_text(f"batch: {{size: {8 - 4 * rank if what.startswith('value') else 8}}}\n")
    launcher = tmp_path / "on_its_machine.py"
    launcher.write_text(
        "import os, runpy, sys\n"
        f"sys.path.insert(0, {str(ROOT)!r})\n"
        f"os.chdir(f\"{tmp_path}/machine{{os.environ['RANK']}}\")\n"
        f"sys.argv[0] = {str(ROOT / 'train_sft.py')!r}\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    words = [word for word in sft_words("./m", files, tmp_path / "o", epochs=1) if not word.startswith("batch.size")]
    said = fails(launcher, "--config", "c.yaml", *words, ranks=2)
    assert f"error: rank 1 has another {what} than rank 0; " in said and not (tmp_path / "o").exists()


def test_a_file_in_the_place_of_the_reference_cache_is_one_line(tiny_qwen, files, tmp_path):
    (tmp_path / "reference").write_text("")
    with pytest.raises(UserError, match="reference is a file; set another folder"):
        inside("train_cogpo.py", *cogpo_words(tiny_qwen, files, tmp_path / "o"))
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize("path", ["modle", "out/sftt", "out/"])
def test_a_mistyped_folder_is_not_looked_for_on_the_hub(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match=rf"model folder {path} (does not exist|has no .*); .* a hub id, owner/name"):
        load_tokenizer(path)


def test_added_tokens_beyond_the_embedding_are_refused_where_they_occur(files, tmp_path):
    """As Gemma 3's token for images, which its models of text alone have no embedding for, or a padding token."""
    base, rows = make_model(tmp_path / "base"), sft_rows(4)
    tokenizer = load_tokenizer(base)
    tokenizer.add_tokens(["<image>"], special_tokens=True)
    tokenizer.save_pretrained(base)
    inside("train_sft.py", *sft_words(base, files, tmp_path / "o", epochs=1))
    rows[2]["messages"][0]["content"] += " <image>"
    write_jsonl(tmp_path / "rows.jsonl", rows)
    said = refused("train_sft.py", [*sft_words(base, files, tmp_path / "p"), f"data.file={tmp_path}/rows.jsonl"])
    assert re.search(r"<image> is token (\d+) of the tokenizer in .*base, but the model has embeddings for \1;", said)


def test_a_damaged_record_of_a_finished_run_is_one_line(tiny_qwen, files, tmp_path):
    words = sft_words(tiny_qwen, files, tmp_path / "o", epochs=1)
    inside("train_sft.py", *words)
    (tmp_path / "o/run.json").write_text('{"inputs": ')
    assert f"{tmp_path}/o/run.json is damaged; restore it, or delete" in refused("train_sft.py", words)
