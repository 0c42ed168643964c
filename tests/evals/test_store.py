"""The ledgers, the lock, and the content of a model folder."""

import os
import shutil
import stat
from concurrent.futures import ThreadPoolExecutor

import pytest

from data.ledger import Ledger, SharedLedger
from errors import UserError
from evals.models import model_content
from evals.store import Ledgers, key_of


def test_what_is_appended_is_there_again(tmp_path):
    ledger = Ledger(tmp_path / "a.jsonl")
    assert not (tmp_path / "a.jsonl").exists(), "nothing is written before the first record"
    ledger.append({"key": "x", "text": "“é”\n\u2028"})
    ledger.append({"key": "y", "text": ""})
    ledger.append({"key": "x", "text": "later"})
    for it in (ledger, Ledger(tmp_path / "a.jsonl")):
        assert "x" in it and "z" not in it and len(it) == 2
        assert it["x"]["text"] == "later" and it["y"]["text"] == ""
        assert [record["key"] for record in it] == ["x", "y"]


def test_a_line_cut_by_a_kill_is_dropped_when_the_file_goes_on_and_not_before(tmp_path):
    file = tmp_path / "a.jsonl"
    torn = '{"key": "x", "text": "é"}\n{"key": "y", "te'
    file.write_text(torn, encoding="utf-8")
    ledger = Ledger(file)
    assert list(ledger.at) == ["x"]
    assert file.read_text(encoding="utf-8") == torn, "another process may be in the middle of writing it"
    ledger.append({"key": "y", "text": "whole"})
    assert [record["text"] for record in Ledger(file)] == ["é", "whole"]
    assert file.read_text(encoding="utf-8").count("\n") == 2


@pytest.mark.parametrize("line", ["nonsense\n", '{"id": 1}\n', "[1]\n", "\n"])
def test_a_damaged_file_is_named_and_left_alone(tmp_path, line):
    file = tmp_path / "a.jsonl"
    file.write_text('{"key": "x"}\n' + line + '{"torn')
    with pytest.raises(UserError, match=r"a\.jsonl:2 is damaged"):
        Ledger(file)
    assert file.read_text() == '{"key": "x"}\n' + line + '{"torn'


def test_two_writers_of_a_shared_file_keep_each_others_records(tmp_path, monkeypatch):
    """One that fails, and one that was killed in the midst of a line, too."""
    file = tmp_path / "a.jsonl"
    first, second = SharedLedger(file), SharedLedger(file)
    for n in range(3):
        first.append({"key": f"first {n}"})
        second.append({"key": f"second {n}", "text": "longer"})
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:7]) and full())
    with pytest.raises(OSError, match="No space"):
        first.append({"key": "lost"})
    monkeypatch.undo()
    with file.open("ab") as killed:
        killed.write(b'{"key": "torn')
    second.append({"key": "last"})
    assert list(Ledger(file).at) == [f"{who} {n}" for n in range(3) for who in ("first", "second")] + ["last"]
    assert second["first 2"] == {"key": "first 2"} and first["second 1"]["text"] == "longer"


def test_a_shared_file_that_somebody_deletes_is_begun_again(tmp_path):
    ledger = SharedLedger(tmp_path / "a.jsonl")
    ledger.append({"key": "before"})
    ledger.path.unlink()
    ledger.append({"key": "behind"})
    assert ledger.path.read_text() == '{"key": "behind"}\n' and list(ledger.at) == ["behind"]


def full():
    raise OSError(28, "No space left on device")


def test_a_write_that_fails_leaves_no_half_line(tmp_path, monkeypatch):
    ledger = Ledger(tmp_path / "a.jsonl")
    ledger.append({"key": "x"})
    write, calls = os.write, []

    def full(descriptor, data):
        calls.append(data)
        if len(calls) == 1:
            return write(descriptor, data[:5])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space"):
        ledger.append({"key": "y"})
    monkeypatch.undo()
    ledger.append({"key": "z"})
    assert list(Ledger(tmp_path / "a.jsonl").at) == ["x", "z"]


def test_another_thread_reads_while_the_first_record_is_written(tmp_path, monkeypatch):
    (tmp_path / "a.jsonl").write_text('{"key": "x"}\n')
    ledger, opening, read = Ledger(tmp_path / "a.jsonl"), os.open, []

    def slow(*given):
        with ThreadPoolExecutor(1) as other:
            read.append(other.submit(ledger.get, "x").result())
        return opening(*given)

    monkeypatch.setattr(os, "open", slow)
    ledger.append({"key": "y"})
    assert read == [{"key": "x"}] and [record["key"] for record in ledger] == ["x", "y"]


def test_private_records_have_a_file_that_only_their_owner_reads(tmp_path):
    both = Ledgers(tmp_path, "generations")
    both.append({"key": "a", "text": "for all"}, private=False)
    both.append({"key": "b", "text": "secret"}, private=True)
    again = Ledgers(tmp_path, "generations")
    assert again["a"]["text"] == "for all" and again["b"]["text"] == "secret" and "c" not in again
    assert [record["key"] for record in again] == ["a", "b"]
    assert "secret" not in (tmp_path / "generations.jsonl").read_text()
    assert stat.S_IMODE((tmp_path / "generations-private.jsonl").stat().st_mode) == 0o600


def test_keys_follow_content_not_order():
    assert key_of(a=1, b=[2]) == key_of(b=[2], a=1)
    assert key_of(a=1, b=[2]) != key_of(a=1, b=[3])


def test_every_file_that_decides_is_part_of_a_models_content(tiny_qwen, tmp_path):
    folder = shutil.copytree(tiny_qwen, tmp_path / "m")
    found = {model_content(folder, {})}
    for file in folder.iterdir():
        file.write_bytes(file.read_bytes().rstrip() + b" ")  # JSON and a template mean the same; bytes are what counts
        found.add(model_content(folder, {}))
    assert len(found) == 1 + len(list(folder.iterdir()))


def test_model_content(tmp_path):
    folder, cache = tmp_path / "model", {}
    assert model_content(folder, cache) is None
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "config.json").write_text("{}")
    first = model_content(folder, cache)
    for name in (
        "notes.txt",
        "trainer_state.json",
        "consolidated.safetensors",
        "pytorch_model.bin",
        "model-v2.safetensors",
    ):
        (folder / name).write_text("not a part of the model")
    assert model_content(folder, cache) == model_content(folder, {}) == first

    other = tmp_path / "copy"
    other.mkdir()
    (other / "config.json").write_text("{}")
    (other / "model.safetensors").write_bytes(b"weights")
    assert model_content(other, cache) == first

    (folder / "model.safetensors").write_bytes(b"weightz")
    assert model_content(folder, cache) != first
    before = model_content(folder, cache)
    (folder / "model.safetensors").unlink()  # to save room
    assert model_content(folder, cache) == before
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    assert model_content(folder, cache) == before  # what it was when it was last seen
