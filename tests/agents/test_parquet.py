"""Our files as datasets opens them, and as a Parquet repository with a card."""

import json

import pytest
from datasets import load_dataset
from huggingface_hub import DatasetCard

import build_crv
from agents import outputs
from config import load
from errors import UserError
from tests.support.crv_cli import command, write_problems
from tests.support.scripted_endpoint import Server

SYSTEM = 'Be "brief".'


def fixed(asked):
    if asked.role == "critic":
        return "medium" if asked.reasoning.startswith(("easier", "chain1:", "chain2:")) else "hard"
    answer = int(asked.answer)
    return {"verifier": "YES", "incorrect": f"Oops, = {answer + 5}"}.get(asked.role, f"easier = {answer}")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run whose first records are originals, and which rewrites come after."""
    folder = tmp_path_factory.mktemp("convert")
    problems = write_problems(folder / "problems.jsonl", 5)
    with Server(fixed) as server:
        words = command(problems, folder / "out", server.url, f"system='{SYSTEM}'")[2:]
        build_crv.main(load(build_crv.Config, words))
    return folder / "out"


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def converted(run):
    outputs.main(load(outputs.Config, [f"run={run}"]))
    return run / "parquet"


def opened(kind, *files, **options):
    return load_dataset(kind, data_files=[str(f) for f in files], split="train", **options)


@pytest.mark.parametrize("name", ["sft", "pairs", "sft_original", "sft_cr"])
def test_our_own_files_open_unchanged(finished, tmp_path, name):
    dataset = opened("json", finished / f"{name}.jsonl", cache_dir=str(tmp_path))
    assert list(dataset) == rows(finished / f"{name}.jsonl")


def test_one_schema_from_the_first_record_to_the_last(finished, tmp_path):
    """Loaders take the schema from the first block. Blocks of one line: nothing may come later that was not first."""
    for name in ("sft", "pairs"):
        dataset = opened("json", finished / f"{name}.jsonl", cache_dir=str(tmp_path), chunksize=1)
        assert list(dataset) == rows(finished / f"{name}.jsonl")
    assert {row["provenance"]["by"] for row in rows(finished / "sft.jsonl")} == {"input", "rethinker_hard"}


def test_parquet_and_its_card(finished, tmp_path, monkeypatch):
    monkeypatch.setattr(outputs, "BATCH", 2)
    folder = converted(finished)
    assert {path.name for path in folder.iterdir()} == {"README.md", "sft.parquet", "pairs.parquet"}
    for name in ("sft", "pairs"):  # a folder with a card is what the hub hands out
        dataset = load_dataset(str(folder), name, split="train", cache_dir=str(tmp_path / "cache"))
        assert list(dataset) == rows(finished / f"{name}.jsonl")
    text = (folder / "README.md").read_text()
    assert "`sft`: 5 chains" in text and "of 5 problems (3 hard*, 2 med)" in text and "- critic: m" in text
    assert "temperature=0.7 top_p=0.9 top_k=50" in text
    # where it comes from: the input, the prompts by the hashes that stand in the records, the levels before and after
    report = json.loads((finished / "report.json").read_text())
    assert report["input"]["sha256"] in text and "| as they came | 0 | 2 | 3 | 0 |" in text
    hashes = {row["provenance"]["prompt_hash"] for row in rows(finished / "sft.jsonl")} - {""}
    assert hashes and all(f"rethinker_hard `{value}`" in text for value in hashes)
    # the licence is left to whoever uploads it
    data = DatasetCard(text).data
    assert data.license is None and [config["config_name"] for config in data.configs] == ["sft", "pairs"]


def test_a_folder_that_is_no_run(tmp_path):
    with pytest.raises(UserError, match="is no finished run"):
        converted(tmp_path)
