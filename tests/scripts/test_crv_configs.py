"""The configurations of the paper's studies: every file loads, is consistent, and is the study that it names."""

import pytest

import build_crv
from config import load
from data.render import problem_messages
from errors import UserError
from tests.support.crv_cli import ROOT

STUDIES = sorted(path.stem for path in (ROOT / "configs/paper").glob("crv_*.yaml") if "sft" not in path.stem)


def study(name, *words):
    cfg = load(build_crv.Config, ["--config", str(ROOT / f"configs/paper/{name}.yaml"), *words])
    build_crv.check_config(cfg)
    return cfg


@pytest.mark.parametrize("name", STUDIES)
def test_every_study_loads_with_the_papers_sampling(name):
    cfg = study(name)
    sampling = cfg.sampling
    assert (sampling.temperature, sampling.top_p, sampling.top_k, cfg.max_rounds) == (0.7, 0.9, 50, 3)  # A.2, §3.2.3
    assert cfg.out == f"out/paper/{name}" or name in cfg.out


def test_table_1_votes_three_times_and_only_rates():
    cfg = study("crv_table1")
    assert (cfg.votes, cfg.stages, cfg.incorrect_tries) == (3, "c", 0)


def test_table_4_changes_the_critic_alone():
    cfg, whole = study("crv_table4"), study("crv_bespoke")
    models = {agent: cfg.endpoints[name].model for agent, (name,) in vars(cfg.agents).items()}
    assert models.pop("critic") == "Qwen/Qwen2.5-7B-Instruct"
    assert set(models.values()) == {whole.endpoints["teacher"].model}


def test_table_5_draws_ten_thousand_of_each_level():
    cfg = study("crv_table5")
    assert (cfg.level_size, cfg.stages, cfg.incorrect_tries) == (10_000, "c", 0)
    assert cfg.problems == study("crv_openthoughts").problems


@pytest.mark.parametrize("stages", ["c", "cr", "crv"])
def test_table_6_shares_the_calls_of_the_whole_run(stages):
    cfg, whole = study("crv_table6", f"stages={stages}"), study("crv_bespoke")
    assert cfg.stages == stages and cfg.journal == f"{whole.out}/journal.jsonl"


def test_the_faithful_run_has_no_guard():
    cfg = study("crv_faithful")
    assert not cfg.guards and not cfg.check_answer and not cfg.check_incorrect


def test_solve_asks_the_base_model():
    cfg = study("crv_solve")
    assert cfg.verifier_mode == "solve" and cfg.endpoints[cfg.agents.verifier[0]].model == "Qwen/Qwen2.5-7B-Instruct"


def test_code_gets_no_mathematical_prefix():
    def asked(**problem):
        return problem_messages({"problem": "P"} | problem, "", study("crv_bespoke").instruction)[0]["content"]

    assert asked() == asked(domain="math") == "Return your final response within \\boxed{}. P"
    assert asked(domain="code") == "P"


@pytest.mark.parametrize(
    ("instruction", "message"),
    [
        ("{math: '{problem}'}", "needs a default"),
        ("{math: 'x', default: '{problem}'}", "must be text"),
        ("x", "must"),
    ],
)
def test_an_instruction_without_a_problem_or_default_is_refused(instruction, message):
    words = ["--config", str(ROOT / "configs/pocket/crv.yaml"), "instruction=" + instruction]
    with pytest.raises(UserError, match=message):
        build_crv.check_config(load(build_crv.Config, words))


@pytest.mark.parametrize("setup", ["vllm_one", "vllm_four", "hosted"])
def test_documented_set_ups(setup):
    files = ["configs/paper/crv_bespoke.yaml", f"configs/endpoints/{setup}.yaml"]
    cfg = load(build_crv.Config, [word for file in files for word in ("--config", str(ROOT / file))])
    build_crv.check_config(cfg)
    assert list(cfg.endpoints) == ["teacher"] and cfg.prompt_role == "user"
