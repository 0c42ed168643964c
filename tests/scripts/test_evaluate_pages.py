"""What evaluate.py shows of the responses themselves: samples.html and compare.html of a real run."""

import base64
import gzip
import json
import re
import subprocess
from pathlib import Path

import pytest
from transformers import AutoTokenizer

import evaluate
from config import load
from errors import UserError
from pocket.tiny import make_model
from tests.support.tiny import sums
from tests.support.warm_python import python

ROOT = Path(__file__).resolve().parents[2]
SECRET = "Which quokka of Rottnest lactonises its ylide"
OPTIONS = ("Correct Answer", "Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3")


def run(*words):
    return subprocess.run([*python(), "evaluate.py", *words], cwd=ROOT, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A run of two models, three samples, whose responses were then replaced by ones that are right here and there."""
    folder = tmp_path_factory.mktemp("run")
    rows = [{"id": id, "problem": prompt[0]["content"], "answer": answer} for id, prompt, _, _, _, answer in sums(6)]
    (folder / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    option = {name: f"{SECRET}: wombat {number}" for number, name in enumerate(OPTIONS)}
    secret = [{"Record ID": f"rec{i}", "Question": f"{SECRET} {i}?"} | option for i in range(2)]
    (folder / "gpqa.jsonl").write_text("".join(json.dumps(row) + "\n" for row in secret))
    words = [
        f"out={folder}/out", f"models.base={make_model(folder / 'base', seed=0)}",
        f"models.sft={make_model(folder / 'sft', seed=1)}", "max_new_tokens=4", "samples=3", "sampling.temperature=1",
        "compare=[base,sft]", f"benchmarks.sums.file={folder}/sums.jsonl", "benchmarks.gpqa.kind=gpqa_diamond",
        f"benchmarks.gpqa.file={folder}/gpqa.jsonl", "allow_size=true",
    ]  # fmt: skip
    made = run(*words, "--generate-only")
    assert made.returncode == 0, made.stderr
    answers = {row["id"]: row["answer"] for row in rows}
    for name in ("generations.jsonl", "generations-private.jsonl"):
        file = folder / "out" / name
        records = [json.loads(line) for line in file.read_text().splitlines()]
        for number, record in enumerate(records):
            right = answers.get(record["problem_id"], "C") if number % 3 == 0 else "999"
            record |= {"text": f"<think>{SECRET} $\\frac{{1}}{{2}}$</think>\\boxed{{{right}}}", "finish_reason": "stop"}
            if name == "generations.jsonl":
                record["text"] = record["text"].replace(SECRET, "so")
        file.write_text("".join(json.dumps(record) + "\n" for record in records))
    graded = run(*words, "--grade-only")
    assert graded.returncode == 0, graded.stderr
    return folder / "out", words, graded


def test_counts_are_those_of_the_table(done):
    out, _, graded = done
    cells = re.findall(r"\((\d+/\d+)\)", graded.stdout.split("Paired")[0].split("\n\n")[1])
    page = (out / "samples.html").read_text()
    said = re.findall(r'<a href="#benchmark=\w+&amp;model=\w+">(\d+/\d+)</a>', page)
    assert len(cells) == 4 and sorted(cells) == sorted(said) and "written:" in graded.stderr
    compared = re.findall(r'<a href="#benchmark=\w+&amp;model=\w+">(\d+/\d+)</a>', (out / "compare.html").read_text())
    assert sorted(compared) == sorted(cells)


def test_private_problems_are_in_neither_page(done):
    for name in ("samples.html", "compare.html"):
        page = (done[0] / name).read_text()
        packed = re.search(r'<script id="samples" type="text/plain">([^<]*)</script>', page)[1]
        inside = gzip.decompress(base64.b64decode(packed)).decode()
        assert "rec1" in inside and "so $" in inside  # the others' texts are there
        assert not re.search("quokka|Rottnest|ylide|wombat", page + inside)


def test_the_page_has_the_prompt_as_sent(done):
    """The messages, and for each model the very text of the tokens that it was given."""
    out, words, _ = done
    page = (out / "samples.html").read_text()
    packed = re.search(r'<script id="samples" type="text/plain">([^<]*)</script>', page)[1]
    items = json.loads(gzip.decompress(base64.b64decode(packed)))["items"]
    tokenizer = AutoTokenizer.from_pretrained(out.parent / "base")
    for item in items:
        if item["benchmark"] == "gpqa":
            assert "prompt" not in item and not any("prompt" in column for column in item["columns"])
            continue
        assert item["text"] in item["prompt"][-1]["content"]
        sent = tokenizer.apply_chat_template(item["prompt"], tokenize=False, add_generation_prompt=True)
        assert [column["prompt"] for column in item["columns"]] == [sent, sent]
    assert len(items) == 8
    # records of an earlier version have no prompt: their pages have the messages
    file = out / "generations.jsonl"
    kept = file.read_text()
    records = [json.loads(line) for line in kept.splitlines()]
    file.write_text("".join(json.dumps({k: v for k, v in r.items() if k != "prompt"}) + "\n" for r in records))
    assert run(*words, "--render-only", f"report={out.parent}/old").returncode == 0
    packed = re.search(r'text/plain">([^<]*)</script>', (out.parent / "old/samples.html").read_text())[1]
    items = json.loads(gzip.decompress(base64.b64decode(packed)))["items"]
    assert items[0]["prompt"] and not items[0]["columns"][0]["prompt"]
    file.write_text(kept)


@pytest.mark.parametrize("compare", ["[base]", "[base,base]", "[base,nobody]", "[base,sft,base]"])
def test_what_cannot_be_compared(done, compare):
    with pytest.raises(UserError, match=r"compare takes two of `models` \(base, sft\)"):
        evaluate.main(load(evaluate.Config, [*done[1], f"compare={compare}"]))
