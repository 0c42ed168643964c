"""Pairs out of a student's own samples: which answers they take, and what is refused."""

import json

import pytest
import yaml

from data.records import read_records, write_jsonl
from data.rows import iter_rows
from errors import UserError
from evals.models import model_content, write_facts
from evals.own_pairs import Config, main
from tests.support.tiny import pair_rows, sft_rows

SAMPLES = {  # problem: (text, status, how it ended) of each sample
    "p0": [("5 is it", "wrong", "stop"), ("5 is it", "wrong", "stop"), ("6 \x08oxed", "wrong", "stop")],
    "p1": [("right", "correct", "stop"), ("7", "wrong", "stop")],
    "p2": [("right", "correct", "stop"), ("and so on", "truncated", "length")],
    "p3": [("8 and", "wrong", "length"), ("nothing", "no_answer", "stop")],
}


@pytest.fixture
def made(tmp_path):
    """(config, its folder): an evaluation of a model folder on four of six problems."""
    model, out = tmp_path / "model", tmp_path / "eval"
    model.mkdir()
    out.mkdir()
    (model / "model.safetensors").write_bytes(b"weights")
    (model / "config.json").write_text("{}")
    facts = {"folders": {}, "speed": {}}
    model_content(str(model), facts["folders"], str(model))
    write_facts(out, facts)
    (out / "config.yaml").write_text(yaml.safe_dump({"sampling.temperature": 1.0, "sampling.top_p": None}))
    samples = [(problem, k, *answer) for problem, answers in SAMPLES.items() for k, answer in enumerate(answers)]
    generations = [
        {"key": f"{p}-{k}", "model": str(model), "benchmark": "train", "problem_id": p, "sample": k, "text": text,
         "finish_reason": end} for p, k, text, _, end in samples
    ]  # fmt: skip
    write_jsonl(out / "generations.jsonl", generations)
    write_jsonl(
        out / "grades.jsonl",
        [{"key": f"g-{p}-{k}", "generation": f"{p}-{k}", "status": status} for p, k, _, status, _ in samples],
    )
    write_jsonl(tmp_path / "sft.jsonl", [row | {"origin": "easy*"} for row in sft_rows(6)])
    write_jsonl(tmp_path / "pairs.jsonl", pair_rows(6))
    return Config(str(out), str(model), str(tmp_path / "sft.jsonl"), str(tmp_path / "own.jsonl")), tmp_path


def test_the_first_distinct_wrong_and_finished_answers(made, capsys):
    cfg, folder = made
    main(cfg)
    assert "1 none, 1 some, 1 all" not in capsys.readouterr().err  # p3 ended neither right nor wrong
    cfg.per_problem, cfg.pairs = 5, str(folder / "pairs.jsonl")
    main(cfg)
    said = capsys.readouterr().err
    assert "2 none, 1 some, 1 all, 2 not sampled" in said and "3 own pairs, 8 of CRV's" in said
    rows = list(read_records(cfg.out, "pair"))
    own, kept = rows[:3], rows[3:]
    assert [(row["id"], row["rejected"][0]["content"]) for row in own] == [
        ("p0/own0", "5 is it"), ("p0/own2", "6  oxed"), ("p1/own1", "7"),
    ]  # fmt: skip
    good = sft_rows(6)[0]["messages"]
    assert (own[0]["prompt"], own[0]["chosen"], own[0]["gap"], own[0]["origin"]) == (
        good[:-1], good[-1:], "large", "easy*>own",
    )  # fmt: skip
    assert own[1]["own"]["sample"] == 2 and own[1]["own"]["sampling"] == "sampling.temperature=1.0"
    assert {row["gap"] for row in kept} == {"small", "medium"}
    assert len({json.dumps(sorted((k, type(v).__name__) for k, v in row["own"].items())) for row in rows}) == 1


def test_records_that_say_nothing_of_their_origin(made):
    cfg, folder = made
    write_jsonl(folder / "sft.jsonl", sft_rows(6))
    main(cfg)
    assert {row["origin"] for row in read_records(cfg.out, "pair")} == {"sft>own"}


def test_answers_of_other_weights_are_refused(made):
    cfg, folder = made
    (folder / "model/model.safetensors").write_bytes(b"trained further")
    with pytest.raises(UserError, match="holds other weights than those that"):
        main(cfg)
    cfg.model = str(folder / "another")
    with pytest.raises(UserError, match="knows no model folder"):
        main(cfg)
    assert not (folder / "own.jsonl").exists()


def test_the_weights_of_a_served_model_are_its_label(made):
    cfg, _ = made
    rows = [row | {"model": "endpoint:crv_sft@abc"} for _, row in iter_rows(f"{cfg.eval}/generations.jsonl")]
    write_jsonl(f"{cfg.eval}/generations.jsonl", rows)
    cfg.model = "endpoint:crv_sft@abc"
    main(cfg)
    assert {row["own"]["weights"] for row in read_records(cfg.out, "pair")} == {"abc"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: [*rows, rows[0] | {"key": rows[1]["key"]}], "holds several responses of .* to p0"),
        (lambda rows: [*rows, rows[0] | {"key": "new", "sample": 9}], "has no grade"),
        (lambda rows: rows[5:6], "holds no wrong, finished answer"),
    ],
)
def test_what_cannot_be_told_apart_is_refused(made, change, message):
    cfg, _ = made
    rows = [row for _, row in iter_rows(f"{cfg.eval}/generations.jsonl")]
    write_jsonl(f"{cfg.eval}/generations.jsonl", change(rows))
    with pytest.raises(UserError, match=message):
        main(cfg)
