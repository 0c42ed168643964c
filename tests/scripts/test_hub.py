"""Names of the hub where a file or a folder is expected: what was uploaded there trains as it would from the disk."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from agents.outputs import write_parquet
from data.records import read_records
from tests.support.hub import hub
from tests.support.scripts import ROOT, cogpo_words, inside, metrics

CARD = """---
configs:
- {config_name: sft, data_files: sft.parquet, default: true}
- {config_name: pairs, data_files: pairs.parquet}
- {config_name: few, data_files: [{split: train, path: sft.parquet}, {split: test, path: few.parquet}]}
---
"""
READ = """
import sys
from data.rows import iter_rows
from errors import UserError
for name in sys.argv[1:]:
    try:
        where, row = next(iter_rows(name))
        print(where, row["id"])
    except UserError as error:
        print(error)
"""


def python(environment, *words):
    done = subprocess.run(
        [sys.executable, *map(str, words)],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.splitlines()


@pytest.fixture
def uploaded(tiny_qwen, files, tmp_path):
    """A repository with a model, and the files of a CRV run as `python -m agents.outputs` lays them out."""
    for kind, name in (("sft", "sft"), ("pair", "pairs")):
        write_parquet(tmp_path / f"{name}.parquet", read_records(files / f"{name}.jsonl", kind))
    write_parquet(tmp_path / "few.parquet", [{"id": "007"}])
    with hub() as (environment, _, content):
        content |= {file.name: file.read_bytes() for file in Path(tiny_qwen).iterdir()}
        content |= {name: (tmp_path / name).read_bytes() for name in ("sft.parquet", "pairs.parquet")}
        content |= {"README.md": CARD.encode(), "few.parquet": (tmp_path / "few.parquet").read_bytes()}
        yield environment | {"HF_HOME": str(tmp_path / "hf")}


@pytest.mark.slow
def test_a_run_on_names_of_the_hub_is_the_run_on_their_files(uploaded, tiny_qwen, files, tmp_path):
    words = cogpo_words("someone/thing", files, tmp_path / "hub", epochs=1, data__file="someone/thing:pairs:train")
    python(uploaded, "train_cogpo.py", *words)
    data = ModelCard((tmp_path / "hub/model/README.md").read_text()).data
    assert (data.base_model, data.datasets) == ("someone/thing", ["someone/thing"])
    inside("train_cogpo.py", *cogpo_words(tiny_qwen, files, tmp_path / "disk", epochs=1))
    inputs = [json.loads((tmp_path / out / "run.json").read_text())["inputs"] for out in ("hub", "disk")]
    assert inputs[0] == inputs[1]
    assert [m["loss"] for m in metrics(tmp_path / "hub")] == [m["loss"] for m in metrics(tmp_path / "disk")]


def test_which_rows_a_name_of_the_hub_stands_for(uploaded):
    names = ["thing", "thing:train", "thing:pairs:train", "thing:few:test"]
    found = python(uploaded, "-c", READ, *(f"someone/{name}" for name in names))
    assert [line.split() for line in found] == [
        ["someone/thing:1", "p0"],
        ["someone/thing:1", "p0"],
        ["someone/thing:1", "p0/large"],
        ["someone/thing:1", "007"],
    ]
    # once it is in the cache no network is needed
    assert python(uploaded | {"HF_HUB_OFFLINE": "1"}, "-c", READ, "someone/thing:few:test") == [found[-1]]


@pytest.mark.parametrize("offline", ["0", "1"])
def test_a_name_that_is_neither_here_nor_there_is_one_line(uploaded, offline):
    names = ["someone/none", "someone/thing:absent:train", "absent/pairs.jsonl", "tests/absent", "a/b/c"]
    found = python(uploaded | {"HF_HUB_OFFLINE": offline}, "-c", READ, *names)
    assert [line.startswith(f"no such file: {name}") for line, name in zip(found, names, strict=True)] == [True] * 5
    assert [", and no someone/" in line for line in found] == [True, True, False, False, False]
    assert ("OfflineMode" in found[0]) == (offline == "1")
