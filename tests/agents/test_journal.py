"""The journal: on disk before use, repaired after a kill, one writer."""

import asyncio
import json
import resource

import pytest

from agents.journal import Journal, call_key
from errors import UserError


def entry(n, status="ok", text="some text – with ünicode"):
    return {"key": f"k{n}", "status": status, "model": "m", "text": text}


def write(path, entries):
    async def run():
        journal = Journal(path)
        await asyncio.gather(*[journal.keep(e) for e in entries])
        journal.close()

    asyncio.run(run())


def open_and_close(path):
    journal = Journal(path)
    entries = {key: journal.get(key) for key in (f"k{n}" for n in range(400))}
    journal.close()
    return {key: found for key, found in entries.items() if found}


def test_what_was_appended_is_found_again(tmp_path):
    path = tmp_path / "journal.jsonl"
    write(path, [entry(n) for n in range(300)])
    write(path, [entry(300)])
    assert open_and_close(path) == {f"k{n}": entry(n) for n in range(301)}


def test_an_entry_is_on_disk_when_append_returns(tmp_path):
    path = tmp_path / "journal.jsonl"

    async def run():
        journal = Journal(path)
        for n in range(5):
            await journal.keep(entry(n))
            assert json.loads(path.read_text().splitlines()[-1]) == entry(n) == journal.get(f"k{n}")
        journal.close()

    asyncio.run(run())


@pytest.mark.parametrize("tail", [b'{"key": "k9", "sta', b"\xff\xfe", b'{"key": "k9", "status": "ok", "model": "m"}'])
def test_a_torn_tail_is_cut_off(tmp_path, tail):
    path = tmp_path / "journal.jsonl"
    write(path, [entry(0), entry(1)])
    whole = path.read_bytes()
    path.write_bytes(whole + tail)
    assert set(open_and_close(path)) == {"k0", "k1"}
    write(path, [entry(2)])
    assert set(open_and_close(path)) == {"k0", "k1", "k2"}
    assert path.read_bytes()[: len(whole) + 8] == whole + b'{"key": '


def test_a_damaged_line_in_the_middle_is_named(tmp_path):
    path = tmp_path / "journal.jsonl"
    write(path, [entry(0), entry(1)])
    lines = path.read_text().splitlines()
    path.write_text(f"{lines[0]}\n{lines[1][:20]}\n{lines[1]}\n")
    with pytest.raises(UserError, match=r"journal\.jsonl:2 is damaged"):
        Journal(path)
    path.write_text(f"{lines[0]}\n{lines[1]}\n")  # as the message says; the lock was given back
    assert set(open_and_close(path)) == {"k0", "k1"}


def test_failures_are_recorded_but_never_an_answer(tmp_path):
    path = tmp_path / "journal.jsonl"
    write(path, [entry(0, "transport", ""), entry(1, "refused", ""), entry(2, "truncated", "")])
    assert len(path.read_text().splitlines()) == 3
    assert set(open_and_close(path)) == {"k2"}


def test_a_second_run_on_the_same_journal_is_refused(tmp_path):
    first = Journal(tmp_path / "journal.jsonl")
    with pytest.raises(UserError, match="in use by another run"):
        Journal(tmp_path / "journal.jsonl")
    first.close()
    open_and_close(tmp_path / "journal.jsonl")


def test_keys_tell_calls_apart():
    question = {"model": "m", "messages": [{"role": "user", "content": "x"}], "sampling": {"top_p": 0.9}, "seed": 0}
    place = ("p1", "critic", 0, 0, 0)
    keys = {
        call_key(question, *place),
        call_key(question | {"model": "n"}, *place),
        call_key(question | {"seed": 1}, *place),
        call_key(question | {"sampling": {"top_p": 0.8}}, *place),
        call_key(question | {"messages": [{"role": "user", "content": "y"}]}, *place),
        call_key(question, "p2", "critic", 0, 0, 0),  # the same problem under another id
        call_key(question, "p1", "verifier", 0, 0, 0),
        call_key(question, "p1", "critic", 1, 0, 0),
        call_key(question, "p1", "critic", 0, 1, 0),
        call_key(question, "p1", "critic", 0, 0, 1),
    }
    assert len(keys) == 10
    assert call_key(dict(reversed(question.items())), *place) in keys


def test_a_write_that_fails_halfway_leaves_no_half_line(tmp_path):
    """A file-size limit stands in for a full disk: the first bytes of the line still fit."""
    path = tmp_path / "journal.jsonl"

    async def run():
        journal = Journal(path)
        await journal.keep(entry(0))
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (journal.end + 20, hard))
        try:
            with pytest.raises(UserError, match="cannot write"):
                await journal.keep(entry(1))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        await journal.keep(entry(2))
        journal.close()

    asyncio.run(run())
    assert open_and_close(path) == {"k0": entry(0), "k2": entry(2)}


def test_what_cannot_be_written_is_its_callers_error_and_not_the_writers(tmp_path):
    async def run():
        journal = Journal(tmp_path / "journal.jsonl")
        with pytest.raises(UnicodeEncodeError):
            async with asyncio.timeout(2):
                await journal.keep(entry(0, text="half a pair: \ud83d"))
        async with asyncio.timeout(2):
            await journal.keep(entry(1))
        journal.close()

    asyncio.run(run())
    assert set(open_and_close(tmp_path / "journal.jsonl")) == {"k1"}


def test_tokens_are_summed_for_the_budget(tmp_path):
    spent = [entry(n) | {"endpoint": "ab"[n % 2], "prompt_tokens": 10, "completion_tokens": n} for n in range(5)]
    spent[1]["cached_tokens"] = 8
    write(tmp_path / "journal.jsonl", spent)
    journal = Journal(tmp_path / "journal.jsonl")
    assert journal.tally.tokens == {"a": (2, 20, 6, 0), "b": (2, 20, 4, 8)}  # what cost no tokens was no answer
    journal.close()
