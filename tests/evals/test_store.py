"""The ledgers and the content of a model folder."""

import pytest

from data.errors import UserError
from evals.store import Ledger, key_of, model_content


def test_what_is_appended_is_there_again(tmp_path):
    ledger = Ledger(tmp_path / "sub" / "a.jsonl")
    ledger.append({"key": "x", "text": "“é”\n"})
    ledger.append({"key": "y", "text": ""})
    again = Ledger(tmp_path / "sub" / "a.jsonl")
    assert "x" in again and "z" not in again
    assert again["x"]["text"] == "“é”\n"
    assert list(again.records) == ["x", "y"]


def test_a_line_cut_by_a_kill_is_dropped_and_the_file_goes_on(tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_text('{"key": "x"}\n{"key": "y", "te', encoding="utf-8")
    ledger = Ledger(file)
    assert list(ledger.records) == ["x"]
    ledger.append({"key": "y", "text": "whole"})
    assert Ledger(file)["y"]["text"] == "whole"
    assert file.read_text(encoding="utf-8").count("\n") == 2


@pytest.mark.parametrize(("line", "message"), [("nonsense\n", ":2: not valid JSON"), ('{"id": 1}\n', ":2: no key")])
def test_a_damaged_file_is_named_and_left_alone(tmp_path, line, message):
    file = tmp_path / "a.jsonl"
    file.write_text('{"key": "x"}\n' + line)
    with pytest.raises(UserError, match=message):
        Ledger(file)
    assert file.read_text() == '{"key": "x"}\n' + line


def test_keys_follow_content_not_order():
    assert key_of(a=1, b=[2]) == key_of(b=[2], a=1)
    assert key_of(a=1, b=[2]) != key_of(a=1, b=[3])


def test_model_content(tmp_path):
    folder, cache = tmp_path / "model", {}
    assert model_content(folder, cache) is None
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "config.json").write_text("{}")
    first = model_content(folder, cache)
    (folder / "notes.md").write_text("not a part of the model")
    assert model_content(folder, cache) == model_content(folder, {}) == first

    other = tmp_path / "copy"
    other.mkdir()
    (other / "config.json").write_text("{}")
    (other / "model.safetensors").write_bytes(b"weights")
    assert model_content(other, cache) == first

    (folder / "model.safetensors").write_bytes(b"weightz")
    assert model_content(folder, cache) != first
    before = model_content(folder, cache)
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    assert model_content(folder, cache) == before  # what it was when it was last seen
