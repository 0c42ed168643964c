"""docs/data.md tells the life of a pocket problem: made again here, it is the one on the page."""

import json
import re

import pytest
import yaml

import build_crv
from config import load
from pocket import problems as pocket
from tests.support.scripts import ROOT
from tests.support.teacher import scripted_teacher

PAGE = (ROOT / "docs/data.md").read_text(encoding="utf-8")
ID = "train-ec37eb5589"


@pytest.fixture
def teacher():
    with scripted_teacher() as url:
        yield url


def test_the_life_of_one_problem(teacher, tmp_path):
    config = yaml.safe_load((ROOT / "configs/pocket/problems.yaml").read_text())
    words = [f"{key}={json.dumps(value)}" for key, value in (config | {"out": str(tmp_path)}).items()]
    pocket.main(load(pocket.PocketConfig, words))
    (problem,) = (line for line in (tmp_path / "problems.jsonl").read_text().splitlines() if ID in line)
    (tmp_path / "one.jsonl").write_text(problem + "\n")
    words = ["--config", str(ROOT / "configs/pocket/crv.yaml"), f"problems={tmp_path}/one.jsonl"]
    words += [f"out={tmp_path}/crv", f"endpoints.teacher.base_url={teacher}"]
    build_crv.main(load(build_crv.Config, words))
    trace = json.loads((tmp_path / "crv/traces.jsonl").read_text())
    section = PAGE[PAGE.index("## The life of one problem") : PAGE.index("## Why a problem")]
    rows = [line for line in section.splitlines() if re.match(r"\d\. ", line)]
    calls = [(step, call) for step in trace["steps"] for call in step["calls"]]
    assert len(rows) == len(calls) == 9
    for row, (step, call) in zip(rows, calls, strict=True):
        assert step["step"] in row.lower()
        if call["status"] == "ok" and step.get("label"):
            assert f"`{step['label']}`" in row
        assert ("invalid" in row) == (call["status"] == "invalid")
        if step.get("answer_check") and call["status"] == "ok":
            assert step["answer_check"] in row
    for chain in (trace["reasoning"], trace["incorrect"], *trace["rewritten"].splitlines()):
        assert f"`{chain}`" in section
    for line in (tmp_path / "crv/pairs.jsonl").read_text().splitlines():
        pair = json.loads(line)
        assert f"{pair['gap']} (`{pair['origin']}`)" in section
    assert f"origin `{trace['origin']}`, after {trace['rounds']} rounds" in section
