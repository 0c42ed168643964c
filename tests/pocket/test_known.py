"""The medians of log π_ref by kind of chain, from pairs and a reference cache as the study leaves them."""

from dataclasses import replace

import pytest

from config import load
from data.pairs import make_pairs
from data.records import write_jsonl
from data.render import Renderer
from errors import UserError
from model.load import load_tokenizer
from model.reference import sequence_hash
from pocket.study import known
from pocket.study.design import StudyConfig
from pocket.tiny import make_model


def test_a_kind_has_the_median_of_its_chains(tmp_path, capsys):
    student = make_model(tmp_path / "student")
    base = load(StudyConfig, ["--config", "configs/pocket/study/micro.yaml"])
    cfg = replace(base, out=str(tmp_path), student=student, mixtures={"a": ""}, seeds=[1])
    values = {"r1*": -1.0, "r1": -10.0, "w1": -100.0, "r2*": -2.0, "r2": -20.0, "w2": -200.0, "r3": -3.0, "w3": -30.0}
    prompt = [{"role": "user", "content": "x"}]
    pairs = make_pairs("1", prompt, "easy", "r1", "w1", "r1*") + make_pairs("2", prompt, "easy", "r2", "w2", "r2*")
    write_jsonl(tmp_path / "a/seed1/crv/pairs.jsonl", pairs + make_pairs("3", prompt, "medium", "r3", "w3"))
    renderer, cache = Renderer(load_tokenizer(student)), tmp_path / "a/seed1/reference/key.jsonl"
    keys = [sequence_hash(renderer.sequences([(prompt, text)])[0]) for text in values]
    write_jsonl(cache, [{"key": key, "logp": value} for key, value in zip(keys, values.values(), strict=True)])
    with pytest.raises(UserError, match=r"seed1/cogpo has not ended; run pocket.study.study"):
        known.main(cfg)
    (tmp_path / "a/seed1/cogpo/model").mkdir(parents=True)
    known.main(cfg)
    said = capsys.readouterr().out
    for row in ("easy* | -1.5 (2)", "easy | -15.0 (2)", "~easy | -150.0 (2)", "med | -3.0 (1)", "~med | -30.0 (1)"):
        assert f"| {row} |" in said
    assert "| hard | – |" in said
