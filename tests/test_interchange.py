"""docs/data.md: its TRL recipe for CogPO trains as train_cogpo.py does (needs bench/requirements.txt), and its
blocks for other trainers write what these read."""

import json
import re
import shlex

import pytest

from config import load
from data import sources
from data.records import read_records
from pocket.tiny import make_model
from tests.support.scripts import ROOT, cogpo_words, metrics, run

BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
PAGE = (ROOT / "docs/data.md").read_text(encoding="utf-8")
READ = re.search("^## Other projects' data here$.*?^A format", PAGE, re.MULTILINE | re.DOTALL)[0]


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def run_folder(tmp_path):
    """A folder as build_crv.py leaves it: two problems, one of them with all three pairs, under a system prompt."""
    prompt = [{"role": "system", "content": 'Be "brief".'}, {"role": "user", "content": "1 + 1?"}]
    said = {name: [{"role": "assistant", "content": f"{name} = 2"}] for name in ("best", "first", "wrong", "other")}
    sft = [{"id": "a", "messages": prompt + said["best"]}, {"id": "b", "messages": prompt + said["other"]}]
    sides = {"small": ("best", "first"), "medium": ("first", "wrong"), "large": ("best", "wrong")}
    pairs = [
        {"id": f"a/{gap}", "problem_id": "a", "prompt": prompt, "chosen": said[chosen], "rejected": said[rejected],
         "gap": gap, "origin": ""}
        for gap, (chosen, rejected) in sides.items()
    ]  # fmt: skip
    for name, records in (("sft", sft), ("pairs", pairs)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in records))
    return tmp_path


def run_block(sign, folder):
    """Execute the one block of the page that holds `sign`, on this folder in place of the pocket run's."""
    (block,) = (block for block in BLOCK.findall(PAGE) if sign in block)
    assert '"out/pocket/crv"' in block
    exec(block.replace('"out/pocket/crv"', repr(str(folder))), {})


def test_llamafactory_reads_what_the_block_writes(run_folder):
    """By the rules of its converter for formatting: sharegpt: a system turn first, then user and assistant in turn; an
    even number of turns, for a ranking an odd one and each side a single message."""
    run_block("dataset_info.json", run_folder)
    info = json.loads((run_folder / "dataset_info.json").read_text())
    for name, source in (("crv_sft", "sft"), ("crv_pairs", "pairs")):
        entry, ours = info[name], rows(run_folder / f"{source}.jsonl")
        assert entry["formatting"] == "sharegpt" and entry.get("ranking", False) == (source == "pairs")
        columns, tags = entry["columns"], entry["tags"]
        for theirs, row in zip(rows(run_folder / entry["file_name"]), ours, strict=True):
            turns = [(turn[tags["role_tag"]], turn[tags["content_tag"]]) for turn in theirs[columns["messages"]]]
            assert turns == [(m["role"], m["content"]) for m in row.get("messages", row.get("prompt"))]
            roles = [role for role, _ in turns]
            assert roles == [tags["system_tag"], tags["user_tag"], tags["assistant_tag"]][: len(turns)]
            assert len(roles[1:]) % 2 == entry.get("ranking", False)
            for side in ("chosen", "rejected") if entry.get("ranking") else ():
                assert theirs[columns[side]][tags["role_tag"]] == tags["assistant_tag"]
                assert theirs[columns[side]][tags["content_tag"]] == row[side][0]["content"]


def test_easydistill_there_and_back(run_folder, tmp_path):
    run_block("easydistill_cogpo.jsonl", run_folder)
    first = rows(run_folder / "easydistill_cogpo.jsonl")[0]
    assert first["prompt"] == 'Be "brief".\n\n1 + 1?' and first["beta"] == 0.1
    assert rows(run_folder / "easydistill_sft.jsonl")[0] == {"instruction": first["prompt"], "output": "best = 2"}
    sources.main(load(sources.Config, [f"path={run_folder}/easydistill_cogpo.jsonl", f"out={tmp_path}/back.jsonl"]))
    back, ours = list(read_records(tmp_path / "back.jsonl", "pair")), rows(run_folder / "pairs.jsonl")
    key = lambda r: (r["gap"], r["chosen"], r["rejected"])  # noqa: E731
    assert list(map(key, back)) == list(map(key, ours)) and len({r["problem_id"] for r in back}) == 1


BOX = "So \\boxed{7}."
TAGGED = f"<|begin_of_thought|>\n\ncount\n\n<|end_of_thought|>\n\n<|begin_of_solution|>\n\n{BOX}\n\n<|end_of_solution|>"
THOUGHT = f"<think>\ncount\n</think>\n\n{BOX}"
ASKED, SAID = {"role": "user", "content": "3 + 4?"}, {"role": "assistant", "content": THOUGHT}
HUMAN, GPT = {"from": "human", "value": "3 + 4?"}, {"from": "gpt", "value": THOUGHT}
BASE8, PAIR = "All numbers are in base 8.", {"chosen": THOUGHT, "rejected": "8"}
# a word of each command of the page: rows with the columns of what it reads
ROWS = {
    "name=bespoke": [{"system": "Use <|begin_of_thought|>.", "conversations": [
        {"from": "user", "value": "3 + 4?"}, {"from": "assistant", "value": TAGGED}]}],
    "OpenR1-Math-220k": [{"problem": "3 + 4?", "solution": "7", "answer": "7", "generations": [THOUGHT],
                          "correctness_math_verify": [True], "messages": [ASKED, SAID]}],
    "Mixture-of-Thoughts": [{"messages": [ASKED, SAID], "num_tokens": 9, "source": "s"}],
    "OpenThoughts3-1.2M": [{"difficulty": 3, "source": "s", "domain": "math", "conversations": [HUMAN, GPT]}],
    "Llama-Nemotron": [{"input": [ASKED], "output": THOUGHT, "reasoning": "on",
                        "system_prompt": "detailed thinking on"}],
    "easydistill_cot": [{"instruction": "3 + 4?", "response": TAGGED, "thought": "count", "solution": BOX}],
    "LIMO": [{"question": "3 + 4?", "solution": f"count {BOX}", "answer": "7"}],
    "s1K-1.1": [{"question": "3 + 4?", "solution": "7", "deepseek_thinking_trajectory": "count",
                 "deepseek_attempt": BOX, "cot_type": "math"}],
    "cogpo.jsonl": [{"prompt": "3 + 4?", "beta": 0.5, **PAIR}],
    "ultrafeedback": [{"prompt": "3 + 4?", "prompt_id": "i", "messages": [ASKED, SAID], "score_chosen": 8.0,
                       "chosen": [ASKED, SAID], "rejected": [ASKED, SAID | {"content": "8"}]}],
    "dpo.json": [{"system": BASE8, "instruction": "Add.", "input": "3 + 4?", "history": [["3 + 3?", "6"]], **PAIR},
                 {"system": BASE8, "conversations": [HUMAN, GPT, HUMAN], "chosen": GPT,
                  "rejected": GPT | {"value": "8"}}],
    "alpaca.json": [{"system": BASE8, "instruction": "Add.", "input": "3 + 4?", "output": THOUGHT,
                     "history": [["3 + 3?", "6"]]}],
    "sharegpt.parquet": [{"system": BASE8, "conversations": [HUMAN, GPT, HUMAN, GPT]}],
}  # fmt: skip
COMMANDS = re.findall(r"^ {4}((?:name|path)=\S.*?)(?: {2,}#.*)?$", READ, re.MULTILINE)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_commands_lose_nothing(command, tmp_path, capsys):
    (theirs,) = (rows for sign, rows in ROWS.items() if sign in command)
    (tmp_path / "rows.json").write_text(json.dumps(theirs))
    words = [w for w in shlex.split(command) if not re.match("(name|path|subset|split|out)=", w)]
    sources.main(load(sources.Config, [*words, f"path={tmp_path}/rows.json", f"out={tmp_path}/out.jsonl"]))
    assert "left out: none" in capsys.readouterr().out
    found = rows(tmp_path / "out.jsonl")
    assert len(found) == len(theirs)
    for record, row in zip(found, theirs, strict=True):
        text = json.dumps(record)
        for said in ("3 + 4?", "count", "boxed{7}", *(BASE8,) * (BASE8 in row.values()), *("Add.",) * ("input" in row)):
            assert said in text or ("Nemotron" in command and said == "Add.")
        assert ("3 + 3?" in text and '"6"' in text) == ("history" in row)
        assert "problem" not in record or (record["problem"], record["answer"]) == ("3 + 4?", "7")


def test_each_row_of_the_page_has_its_command():
    assert len(COMMANDS) == len(ROWS)


def test_cogpo_in_trl_is_ours(files, tmp_path):
    pytest.importorskip("trl", reason="pip install -r bench/requirements.txt")
    (recipe,) = (block for block in BLOCK.findall(PAGE) if "CogPOTrainer" in block)
    model = make_model(tmp_path / "model", "llama")  # its template ends with the turn: the same tokens on both sides
    pairs = files / "pairs.jsonl"
    count = len(pairs.read_text().splitlines())
    for old, new in (
        ('"out/pocket/seed0/crv_sft/model"', repr(model)),
        ('"out/pocket/crv/pairs.jsonl"', repr(str(pairs))),
        ('"out/trl_cogpo"', repr(str(tmp_path / "trl"))),
        ("learning_rate=5e-7", "learning_rate=1e-3, num_train_epochs=3, logging_steps=1, report_to='none'"),
        ("warmup_steps=0.1", "warmup_steps=0, use_cpu=True, bf16=False, save_strategy='no', optim='adamw_torch_fused'"),
        ("gradient_accumulation_steps=96", f"gradient_accumulation_steps={count}"),
    ):
        assert old in recipe, old
        recipe = recipe.replace(old, new)
    names = {}
    exec(recipe, names)
    theirs = [line["loss"] for line in names["trainer"].state.log_history if "loss" in line]
    extra = {"batch.size": count, "epochs": 3, "optim.warmup": 0}
    run("train_cogpo.py", *cogpo_words(model, files, tmp_path / "ours", **extra))
    ours = [line["loss"] for line in metrics(tmp_path / "ours")]
    print(theirs, ours)
    assert theirs == pytest.approx(ours, abs=2e-4) and min(ours) < 0.6
