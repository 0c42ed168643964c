"""`python build_crv.py` killed, stopped, starved and started twice, against a real server."""

import asyncio
import resource
import signal
import subprocess
import threading

import pytest

import build_crv
from agents.journal import Journal
from agents.outputs import write_outputs
from config import load
from data import records
from data.rows import iter_rows
from errors import UserError
from tests.support.crv_cli import ROOT, check_refused, command, run, write_problems
from tests.support.moody_server import contents, fixed, moody, rows, slowly, wait_for
from tests.support.scripted_endpoint import Server, error


def test_killed_and_resumed_is_as_never_killed(whole, tmp_path):
    out, problems, asked = whole
    with Server(slowly) as server:
        for _ in range(3):
            before = len(server.asked)
            process = subprocess.Popen(
                command(problems, tmp_path / "out", server.url),
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
            wait_for(server, before + 50, process)
            process.kill()
            process.wait()
            process.stdout.close()
        done = run(problems, tmp_path / "out", server.url)
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "out") == contents(out)
    assert 0 < len(server.asked) - len(asked) <= 3 * 8  # at most what was in flight at each kill
    assert max(server.seen.values()) <= 4
    again = run(problems, tmp_path / "out", "http://127.0.0.1:9/v1")  # nobody there, and nobody needed
    assert again.returncode == 0 and contents(tmp_path / "out") == contents(out)


def test_ctrl_c_says_how_to_go_on(whole, tmp_path):
    out, problems, _ = whole
    with Server(slowly) as server:
        process = subprocess.Popen(
            command(problems, tmp_path / "out", server.url), cwd=ROOT, stderr=subprocess.PIPE, text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background shell leaves it ignored
        )  # fmt: skip
        wait_for(server, 60, process)
        process.send_signal(signal.SIGINT)
        stderr = process.communicate(timeout=30)[1]
        assert process.returncode == 130 and "run the same command again" in stderr and "Traceback" not in stderr
        assert run(problems, tmp_path / "out", server.url).returncode == 0
    assert contents(tmp_path / "out") == contents(out)


def test_an_endpoint_that_dies_is_named_and_what_is_done_is_kept(whole, tmp_path):
    out, problems, asked = whole
    with Server(slowly) as server:
        process = subprocess.Popen(
            command(problems, tmp_path / "out", server.url), cwd=ROOT, stderr=subprocess.PIPE, text=True
        )
        wait_for(server, 100, process)
    stderr = process.communicate(timeout=60)[1]
    assert process.returncode == 2 and server.url in stderr and "Traceback" not in stderr
    assert len([line for line in stderr.splitlines() if line.startswith("error:")]) == 1
    with Server(slowly) as other:  # the address may change, the answers stay
        assert run(problems, tmp_path / "out", other.url).returncode == 0
    assert contents(tmp_path / "out") == contents(out)
    assert len(other.asked) <= len(asked) - 100 + 8


def test_what_only_the_transport_failed_is_asked_for_again(whole, tmp_path):
    out, problems, _ = whole
    with Server(lambda a: error(500, "crashed") if a.problem == "What is 3 plus 3?" else moody(a)) as server:
        done = run(problems, tmp_path / "out", server.url)
    assert done.returncode == 0 and "1 critic_transport (the same command asks for these again)" in done.stderr
    lost = next(row for row in rows(tmp_path / "out", "rejected") if row["id"] == "p3")
    assert (lost["outcome"], lost["reason"]) == ("quarantined", "critic_transport")
    with Server(moody) as server:
        assert run(problems, tmp_path / "out", server.url).returncode == 0
    assert contents(tmp_path / "out") == contents(out)
    assert {a.problem for a in server.asked} == {"What is 3 plus 3?"}


def test_a_full_disk_stops_the_run_and_loses_nothing(whole, tmp_path):
    out, problems, _ = whole
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))  # noqa: E731
    with Server(moody) as server:
        done = run(problems, tmp_path / "out", server.url, preexec_fn=limit)
        assert done.returncode == 2 and "cannot write" in done.stderr and "Traceback" not in done.stderr
        assert run(problems, tmp_path / "out", server.url).returncode == 0
    assert contents(tmp_path / "out") == contents(out)


def test_a_second_run_on_the_same_folder_is_refused(tmp_path):
    problems, gate = write_problems(tmp_path / "problems.jsonl", 2), threading.Event()

    async def answer(asked):
        while not gate.is_set():
            await asyncio.sleep(0.01)
        return fixed(asked)

    with Server(answer) as server:
        first = subprocess.Popen(command(problems, tmp_path / "out", server.url), cwd=ROOT, stderr=subprocess.DEVNULL)
        wait_for(server, 1, first)
        claimed = (tmp_path / "out/config.yaml").read_text()
        for words in ((), ("seed=5", f"journal={tmp_path}/other.jsonl")):
            check_refused(run(problems, tmp_path / "out", server.url, *words), "in use by another run")
        assert (tmp_path / "out/config.yaml").read_text() == claimed, "whoever is refused writes nothing"
        gate.set()
        assert first.wait(timeout=60) == 0


def test_the_lock_is_held_until_the_outputs_are_there(tmp_path, monkeypatch):
    problems, out, met = write_problems(tmp_path / "problems.jsonl", 5), tmp_path / "out", []

    def while_written(*args):
        with pytest.raises(UserError, match="in use by another run"):
            Journal(out / "journal.jsonl")
        met.append((out / "report.json").exists())  # of the run before: this one is not finished
        return write_outputs(*args)

    monkeypatch.setattr(build_crv, "write_outputs", while_written)
    with Server(fixed) as server:
        for _ in range(2):
            build_crv.main(load(build_crv.Config, command(problems, out, server.url)[2:]))
            assert (out / "report.json").exists()
    assert met == [False, False]
    Journal(out / "journal.jsonl").close()


def test_no_more_of_the_problems_is_read_than_needed(tmp_path, monkeypatch):
    problems, out, passes = write_problems(tmp_path / "problems.jsonl", 50), tmp_path / "out", []

    def counted(path):
        passes.append(0)
        for row in iter_rows(path):
            passes[-1] += 1
            yield row

    for module in (build_crv, records):
        monkeypatch.setattr(module, "iter_rows", counted)
    with Server(fixed) as server:
        build_crv.main(load(build_crv.Config, command(problems, out, server.url, "limit=3")[2:]))
    assert passes == [50, 3]  # all of it is checked, and then asked about what is wanted
    assert [t["id"] for t in rows(out, "traces")] == ["p1", "p2", "p3"]


def test_problems_that_vanish_between_check_and_use_are_noticed(tmp_path, monkeypatch):
    problems, out = write_problems(tmp_path / "problems.jsonl", 30), tmp_path / "out"

    def shrinking(path):
        yield from iter_rows(path)
        write_problems(problems, 10)

    for module in (build_crv, records):
        monkeypatch.setattr(module, "iter_rows", shrinking)
    with Server(fixed) as server, pytest.raises(UserError, match=r"10 traces .* but there are 30.*Nothing is exported"):
        build_crv.main(load(build_crv.Config, command(problems, out, server.url)[2:]))
    assert not (out / "sft.jsonl").exists() and not (out / "report.json").exists()


def test_a_shared_journal_pays_for_an_ablation_once(whole, tmp_path):
    out, problems, _ = whole
    with Server(moody) as server:
        words = (f"journal={out / 'journal.jsonl'}", "stages=c")
        done = run(problems, tmp_path / "out", server.url, *words)
        assert done.returncode == 0, done.stderr
        verified = {t["id"] for t in rows(out, "traces") if t["outcome"] == "kept"}
        # only the incorrect chains of medium problems that verification had discarded are new
        assert {a.role for a in server.asked} == {"incorrect"}
        assert {f"p{a.problem.split()[2]}" for a in server.asked}.isdisjoint(verified)
    assert [r["id"] for r in rows(tmp_path / "out", "sft")] == [r["id"] for r in rows(out, "sft_c")]
    assert not (tmp_path / "out/sft_cr.jsonl").exists()
