"""Configuration: what a wrong key, a wrong type or a foreign output folder says."""

from dataclasses import dataclass, field
from typing import Literal

import pytest

from config import claim_output, help_text, load, run_cli
from errors import UserError


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
    out: str
    """where results go"""
    optim: Optim = field(default_factory=lambda: Optim(lr=1e-5))
    endpoints: dict[str, Endpoint] = field(default_factory=dict)
    mode: Literal["fast", "exact"] = "fast"
    """how"""
    beta: float | None = None
    """strength"""
    dry: bool = False
    """only say"""


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
        (["out=o", "optim.lr=high"], "config key optim.lr must be float, not 'high'"),
        (["out=o", "mode=slow"], "config key mode is 'slow'; it must be one of fast, exact"),
        (["out=o", "dry=3"], "config key dry must be bool, not 3"),
        (["out=o", "optim=3"], "config key optim holds further keys"),
        (["out=o", "optim.betas=[1]"], "config key optim.betas needs 2 values"),
        (["mode=fast"], "config key out is required (str)"),
        (["out=o", "endpoints.a.retries=2"], "config key endpoints.a.base_url is required"),
        (["--config", "nowhere.yaml"], "no such config file: nowhere.yaml"),
        (["out"], "unexpected word 'out'"),
        (["out='{run}/m"], 'out: cannot read the value "\'{run}/m": while scanning'),
        (["out={run}/m"], "out: cannot read the value '{run}/m': "),
    ],
)
def test_what_is_wrong_is_named(words, message):
    with pytest.raises(UserError) as error:
        load(Config, words)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_bad_yaml_is_one_line(tmp_path):
    (tmp_path / "bad.yaml").write_text("out: [1,\nmode: x\n")
    with pytest.raises(UserError, match=r"bad\.yaml is not valid YAML") as error:
        load(Config, ["--config", str(tmp_path / "bad.yaml")])
    assert "\n" not in str(error.value)


def test_help_lists_every_key_with_default_and_text():
    text = help_text(Config, "What it does.")
    for part in (
        "What it does.",
        "out: str (required)",
        "optim.lr: float = 1e-05",
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
