"""Configuration: what a wrong key, a wrong type or a foreign output folder says."""

import errno
import json
import os
import shutil
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from typing import Literal

import pytest
import yaml

from config import check_output, claim_output, flat, help_text, load, run_cli, run_main
from errors import UserError
from tests.support.scripts import ROOT
from values import FilePath


@dataclass
class Optim:
    lr: float
    """peak learning rate"""
    betas: tuple[float, float] = (0.9, 0.999)
    """moments"""


@dataclass
class Endpoint:
    base_url: str
    """address"""
    retries: int = 3
    """tries"""


@dataclass
class Config:
    out: FilePath
    """where results go"""
    optim: Optim = field(default_factory=lambda: Optim(lr=1e-5))
    endpoints: dict[str, Endpoint] = field(default_factory=dict)
    mode: Literal["fast", "exact"] = "fast"
    """how"""
    beta: float | None = None
    """strength"""
    dry: bool = False
    """only say"""
    names: dict[str, str] = field(default_factory=dict)
    folders: dict[str, FilePath] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    body: dict = field(default_factory=dict)


def test_values_from_file_then_words(tmp_path):
    (tmp_path / "base.yaml").write_text("optim: {lr: 1e-4}\nmode: exact\n")
    (tmp_path / "run.yaml").write_text("extends: base.yaml\nout: here\nendpoints: {a: {base_url: http://x}}\n")
    cfg = load(
        Config, ["--config", str(tmp_path / "run.yaml"), "optim.betas=[0.8, 0.9]", "endpoints.a.retries=5", "--dry"]
    )
    assert cfg.optim == Optim(lr=1e-4, betas=(0.8, 0.9))
    assert cfg.endpoints == {"a": Endpoint("http://x", 5)}
    assert cfg.mode == "exact" and cfg.dry and cfg.beta is None


def test_a_sections_own_defaults_survive_a_partial_override():
    cfg = load(Config, ["out=o", "optim.betas=[0.5, 0.6]"])
    assert cfg.optim == Optim(lr=1e-5, betas=(0.5, 0.6))


@pytest.mark.parametrize(
    "words,message",
    [
        (["out=o", "optim.l=1"], "unknown config key optim.l; did you mean optim.lr?"),
        (["out=o", "modus=fast"], "unknown config key modus; did you mean mode?"),
        (["out=o", "optim.lr=high"], "config key optim.lr must be a number, not 'high'"),
        (["out=o", "mode=slow"], "config key mode must be one of fast, exact, not 'slow'"),
        (["out=o", "dry=3"], "config key dry must be true or false, not '3'"),
        (["out=o", "optim=3"], "config key optim must be a section of keys, not '3'"),
        (["out=o", "optim.betas=[1]"], "config key optim.betas must be a list of 2, each a number, not ['1']"),
        (["mode=fast"], "config key out is required (text)"),
        (["out=o", "endpoints.a.retries=2"], "config key endpoints.a.base_url is required"),
        (["--config", "nowhere.yaml"], "cannot read the config nowhere.yaml: No such file or directory"),
        (["out"], "unexpected word 'out'"),
        (["out='{run}/m"], 'out: cannot read the value "\'{run}/m": not valid YAML'),
    ],
)
def test_what_is_wrong_is_named(words, message):
    with pytest.raises(UserError) as error:
        load(Config, words)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_bad_yaml_is_one_line(tmp_path):
    (tmp_path / "bad.yaml").write_text("out: [1,\nmode: x\n")
    with pytest.raises(UserError, match=r"bad\.yaml:3: not valid YAML") as error:
        load(Config, ["--config", str(tmp_path / "bad.yaml")])
    assert "\n" not in str(error.value)


def test_help_lists_every_key_with_default_and_text():
    text = help_text(Config, "What it does.")
    for part in (
        "What it does.",
        "out: text (required)",
        "optim.lr: a number = 1e-05",
        "peak learning rate",
        "NAME.base_url",
    ):
        assert part in text


def test_output_folder_of_another_config_is_refused(tmp_path):
    claim_output(load(Config, ["out=o"]), tmp_path / "o")
    claim_output(load(Config, ["out=o"]), tmp_path / "o")
    with pytest.raises(UserError, match=r"another configuration \(mode: 'fast' there, 'exact' now\)"):
        claim_output(load(Config, ["out=o", "mode=exact"]), tmp_path / "o")
    claim_output(load(Config, ["out=o", "mode=exact"]), tmp_path / "o", free=("mode",))


def test_an_output_folder_that_cannot_be_made_is_one_line():
    with pytest.raises(UserError, match="cannot make /proc/none/o: No such file or directory; set another output"):
        claim_output(load(Config, ["out=o"]), "/proc/none/o")


def test_a_folder_of_somebody_else_is_refused(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="not empty"):
        claim_output(load(Config, ["out=o"]), tmp_path)


def test_the_folder_of_another_script_is_refused_whatever_may_change(tmp_path):
    @dataclass
    class Other:
        model: str
        out: FilePath

    @dataclass
    class Needy:
        optim: Optim
        out: FilePath

    claim_output(Other("m", "o"), tmp_path)
    cfg, text = Needy(Optim(1.0), "o"), (tmp_path / "config.yaml").read_text()
    with pytest.raises(UserError, match="holds a run of another script"):
        claim_output(cfg, tmp_path, free=[*vars(cfg)])
    assert (tmp_path / "config.yaml").read_text() == text


def test_a_resolved_config_can_be_given_again(tmp_path):
    cfg = load(Config, ["out=o", "optim.lr=3e-6", "endpoints.a.base_url=http://x"])
    claim_output(cfg, tmp_path / "o")
    assert load(Config, ["--config", str(tmp_path / "o" / "config.yaml")]) == cfg


def test_a_kill_while_claiming_does_not_spoil_the_folder(tmp_path):
    (tmp_path / "config.yaml.tmp").write_text("out: ")
    cfg = load(Config, ["out=o"])
    claim_output(cfg, tmp_path)
    assert load(Config, ["--config", str(tmp_path / "config.yaml")]) == cfg


def test_an_error_of_all_ranks_is_said_by_rank_0_and_an_error_of_one_by_itself(monkeypatch, capsys):
    waited = []
    monkeypatch.setattr("time.sleep", waited.append)
    monkeypatch.setattr("sys.argv", ["script", "modus=1"])
    for rank in ("0", "3"):
        monkeypatch.setenv("RANK", rank)
        with pytest.raises(SystemExit) as stop:
            run_cli(print, Config, "")
        assert stop.value.code == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("error: unknown config key modus") and second == first.replace("mode?", "mode? (on rank 3)")
    assert len(waited) == 1 and waited[0] > 1  # torchrun ends rank 3 in that time if rank 0 stops too


def test_a_file_in_the_place_of_an_output_folder(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    for folder in (tmp_path / "notes.txt", tmp_path / "notes.txt" / "a" / "b"):
        with pytest.raises(UserError, match=r"notes\.txt is a file; set another folder"):
            claim_output(load(Config, ["out=o"]), folder)


@pytest.mark.parametrize("text", [b"out: [1,\nmode: x\n", b"just words", b"[1, 2]", b"out: \xff\xfe"])
def test_a_damaged_resolved_config_is_one_line(tmp_path, text):
    (tmp_path / "config.yaml").write_bytes(text)
    with pytest.raises(UserError, match=r"config\.yaml is damaged") as error:
        claim_output(load(Config, ["out=o"]), tmp_path)
    assert "\n" not in str(error.value) and (tmp_path / "config.yaml").read_bytes() == text


# --- words: their order, their text, their names ---


def test_words_count_wherever_they_stand_and_the_later_file_goes_before(tmp_path):
    (tmp_path / "a.yaml").write_text("out: a\nmode: exact\noptim: {lr: 1e-4}\n")
    (tmp_path / "b.yaml").write_text("out: b\n")
    files = ["--config", f"{tmp_path}/a.yaml", f"--config={tmp_path}/b.yaml"]
    for words in (["optim.lr=3", *files], [*files, "optim.lr=3"], [*files[:2], "optim.lr=3", files[2]]):
        cfg = load(Config, words)
        assert (cfg.out, cfg.mode, cfg.optim.lr) == ("b", "exact", 3.0)
    assert load(Config, [files[2], *files[:2]]).out == "a"


TEXTS = ["1:30", "007", "1.10", "yes", "1e3", "0x1F", "2026-11-28", "a: b", "[a", "{run}/m", "a #b", "*a", "=", "1_000"]


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_stays_as_it_is_written(tmp_path, text):
    assert load(Config, [f"out={text}"]).out == text
    cfg = load(Config, ["out=o", f"notes={{{json.dumps(text)}: x}}", f"names.{json.dumps(text)}={text}"])
    assert cfg.notes == {text: "x"} and cfg.names == {text: text}
    # what is saved reads as the same again, here and by other YAML readers
    claim_output(cfg, tmp_path / "o")
    assert load(Config, ["--config", str(tmp_path / "o/config.yaml")]) == cfg
    assert yaml.safe_load((tmp_path / "o/config.yaml").read_bytes()) == flat(cfg)
    if text not in ("a: b", "[a", "{run}/m", "a #b", "*a"):  # plain, these are YAML of another kind
        (tmp_path / "c.yaml").write_text(f"out: {text}\nnames: {{x: {text}}}\n")
        cfg = load(Config, ["--config", f"{tmp_path}/c.yaml"])
        assert cfg.out == text and cfg.names == {"x": text}


@pytest.mark.parametrize(
    "written, value",
    [
        ("5e-7", 5e-7), ("1", 1), ("1.5", 1.5), ("010", "010"), ("1:30", "1:30"), ("2026-11-28", "2026-11-28"),
        ("true", True), ("null", None), ("'5e-7'", "5e-7"), ("'no'", "no"), ("[1, {a: 1e3}]", [1, {"a": 1000.0}]),
    ],
)  # fmt: skip
def test_values_without_a_type_are_json(tmp_path, written, value):
    cfg = load(Config, ["out=o", f"body.a.b={written}", """body."x.y"=3"""])
    assert cfg.body == {"a": {"b": value}, "x.y": 3}
    claim_output(cfg, tmp_path / "o")
    assert load(Config, ["--config", str(tmp_path / "o/config.yaml")]) == cfg


def test_null_empty_and_yes_where_they_cannot_be_meant():
    for word, message in {
        "out=null": "out must be text, not null (in YAML null, ~ or nothing; it takes out an entry",
        "out=~": "out must be text, not null (in YAML null, ~ or nothing",
        "body={a: no}": "body.a is no: write true or false, or put it in quotes",
        "names={a: }": "names.a must be text, not null (in YAML null, ~ or nothing",
        "names.a=null": "names.a must be text, not null (in YAML null, ~ or nothing; it takes out an entry",
        "beta=1_": "beta must be a number, not '1_'",
        "optim.lr=1__0": "optim.lr must be a number, not '1__0'",
        "dry=1": "dry must be true or false, not '1'",
        "optim:=x": "optim:= takes the place of a dict, and x is none",
        "mode:=fast": "mode:= takes the place of a dict, and fast is none; write mode=fast",
    }.items():
        with pytest.raises(UserError) as error:
            load(Config, ["out=o", word])
        assert message in str(error.value) and "\n" not in str(error.value)
    assert load(Config, ["out='null'", "beta=null"]).out == "null"


def test_a_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    (tmp_path / "c.yaml").write_text("out: ~/runs\nfolders: {a: ~/x}\n")
    cfg = load(Config, ["--config", f"{tmp_path}/c.yaml", "names.a=~/x"])
    assert load(Config, ["out=~nobody-here/x"]).out == "~nobody-here/x"
    assert (cfg.out, cfg.folders, cfg.names) == ("/home/me/runs", {"a": "/home/me/x"}, {"a": "~/x"})  # names: no paths


def test_a_dict_is_added_to_replaced_and_taken_from(tmp_path):
    (tmp_path / "a.yaml").write_text("out: a\nendpoints: {a: {base_url: u}, b.c: {base_url: v, retries: 9}}\n")
    (tmp_path / "b.yaml").write_text("extends: a.yaml\nendpoints: !replace {d: {base_url: w}}\n")
    (tmp_path / "c.yaml").write_text("extends: a.yaml\nendpoints: {a: null}\n")
    (tmp_path / "d.yaml").write_text("extends: a.yaml\nendpoints:\n  a:\n  b.c: {retries: 2}\n")

    def endpoints(file, *words):
        return load(Config, ["--config", f"{tmp_path}/{file}.yaml", *words]).endpoints

    a, bc, d = Endpoint("u"), Endpoint("v", 9), Endpoint("w")
    assert endpoints("a", "endpoints={d: {base_url: w}}") == {"a": a, "b.c": bc, "d": d}
    assert endpoints("a", "endpoints:={d: {base_url: w}}") == {"d": d} == endpoints("b")
    assert endpoints("a", "endpoints.a=null") == {"b.c": bc} == endpoints("c")
    assert endpoints("d") == {"a": a, "b.c": Endpoint("v", 2)}
    assert endpoints("a", "endpoints.b.c.retries=1", 'endpoints."a".retries=2') == {
        "a": Endpoint("u", 2), "b.c": Endpoint("v", 1)
    }  # fmt: skip
    assert endpoints("a", "endpoints:={}", "endpoints.x.1.base_url=y", "endpoints.x.1.retries=1") == {
        "x.1": Endpoint("y", 1)
    }
    assert endpoints("a", "--config", f"{tmp_path}/b.yaml") == {"d": d}


def test_names_with_dots_are_saved_and_read(tmp_path):
    cfg = load(Config, ["out=o", "names.Qwen2.5-7B=x", "endpoints.v1.5.base_url=u", 'names."a=b"=y', 'names."é."='])
    assert cfg.names == {"Qwen2.5-7B": "x", "a=b": "y"} | {"é.": ""}
    claim_output(cfg, tmp_path / "o")
    assert load(Config, ["--config", str(tmp_path / "o/config.yaml")]) == cfg
    check_output(cfg, tmp_path / "o")


# --- files ---


@pytest.mark.parametrize(
    "text, message",
    [
        (b"out: a\nout: b\n", "c.yaml:2: not valid YAML: out is given twice"),
        (b"out: a\noptim.lr: 1\noptim: {lr: 2}\n", "c.yaml: lr is given twice"),
        (b"out: a\nendpoints: {a: {base_url: u, base_url: v}}\n", "c.yaml:2: not valid YAML: base_url is given twice"),
        (b"out: a\noptim:\n\tlr: 1\n", "c.yaml:3: not valid YAML: found character '\\t' that cannot start any token"),
        (b"out: \xff\n", "c.yaml: not valid YAML: unacceptable character #x00ff"),
        (b"out: a\n---\nout: b\n", "c.yaml:2: not valid YAML"),
        (b"out: !!python/object/apply:os.system [ls]\n", "c.yaml:1: not valid YAML: could not determine a constructor"),
        (b"- a\n", "c.yaml must hold key: value lines"),
        (b"out", "c.yaml must hold key: value lines"),
        (b"", "config key out is required"),
        (b"# nothing\n", "config key out is required"),
        (b"out: a\nmodus: fast\n", "unknown config key modus (CONFIG:2); did you mean mode?"),
        (b"out: a\noptim:\n  lr: fast\n", "config key optim.lr must be a number, not 'fast' (CONFIG:3)"),
        (b"out: a\nlr: 1\n", "unknown config key lr (CONFIG:2); did you mean optim.lr?"),
        (b"extends: c.yaml\n", "c.yaml extends itself"),
        (b"extends: [a, b]\n", "extends takes the name of one file"),
        (b"extends: d.yaml\n", "d.yaml: No such file or directory"),
        (b"out: a\nbody: &a {x: *a}\n", "holds itself"),
        (b"out: a\nbody: " + b"[" * 3000, "a value of the configuration lies too deep"),
        (b"out: a\n? [x, y]\n: 3\n", "c.yaml:2: not valid YAML"),
        (b"out: \"a\\0b\"\n", "config key out must be a path, not"),
        (b'out: "\\ud800"\n', "config key out must be a path, not"),
        (b"out: out/" + b"x" * 300 + b"/a\n", "config key out must be a path, not"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_meant_is_one_line(tmp_path, text, message):
    file = tmp_path / "c.yaml"
    file.write_bytes(text)
    with pytest.raises(UserError) as error:
        load(Config, ["--config", str(file)])
    assert message.replace("CONFIG", str(file)) in str(error.value) and "\n" not in str(error.value)


def test_a_folder_is_no_config(tmp_path):
    with pytest.raises(UserError, match=r"cannot read the config .*: Is a directory"):
        load(Config, ["--config", str(tmp_path)])


@pytest.mark.parametrize("encoding, newline", [("utf-8-sig", "\n"), ("utf-8", "\r\n"), ("utf-16", "\n")])
def test_files_of_other_systems_and_anchors(tmp_path, encoding, newline):
    text = "out: é\nendpoints:\n  a: &a {base_url: u, retries: 2}\n  b: *a\n  c: {<<: *a, retries: 5}\n"
    (tmp_path / "c.yaml").write_bytes(text.replace("\n", newline).encode(encoding))
    cfg = load(Config, ["--config", f"{tmp_path}/c.yaml", "endpoints.a.retries=1"])  # b is no other name for a
    assert cfg.out == "é" and [e.retries for e in cfg.endpoints.values()] == [1, 2, 5]


def test_a_config_from_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_text, args=("out: a\n",))
    writer.start()
    assert load(Config, ["--config", f"{tmp_path}/pipe"]).out == "a"
    writer.join()


def test_a_reader_that_leaves_gets_no_traceback():
    """`train_sft.py --help | head`: whoever reads the output may close it."""
    code = "import settings, config; config.run_cli(lambda cfg: print('x' * 10**6), settings.TrainConfig, 'x' * 10**6)"
    for words, status in ((["--help"], 0), (["out=o", "model.path=m", "data.file=f"], 141)):
        process = subprocess.Popen(
            [sys.executable, "-c", code, *words], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        process.stdout.close()
        assert (process.stderr.read(), process.wait()) == ("", status)


@pytest.mark.parametrize("venv", ["a file", "a link to nothing"])
def test_setup_says_what_is_wrong_with_the_environments_folder(tmp_path, venv):
    (tmp_path / "runs").mkdir()
    for name in ("requirements.txt", "requirements-pocket.txt", "requirements-dev.txt", "runs/setup.sh"):
        shutil.copy(ROOT / name, tmp_path / name)
    if venv == "a file":
        (tmp_path / ".venv").write_text("mine")
    else:
        (tmp_path / ".venv").symlink_to(tmp_path / "nowhere")
    done = subprocess.run(["bash", "runs/setup.sh"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and done.stderr.splitlines()[-1].startswith(
        "error: .venv is neither a folder nor a link"
    )


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "a/b"), "error: cannot open a/b: Permission denied\n"),
        (OSError(errno.EROFS, "Read-only file system", "a/b"), "error: cannot open a/b: Read-only file system\n"),
        (OSError(errno.ENOSPC, "No space left on device"), "error: cannot write to disk: No space left on device; "),
        (UserError("no such file: x"), "error: no such file: x\n"),
    ],
)
def test_what_the_machine_refuses_is_one_line(error, said, capsys):
    def main(*given):
        assert given == (1, 2)
        raise error

    with pytest.raises(SystemExit) as ended:
        run_main(main, 1, 2)
    assert ended.value.code == 2 and capsys.readouterr().err.startswith(said)
