"""An output folder is one run's at a time, and free again however that run ended."""

import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from errors import UserError
from lock import NAME, locked, take
from tests.support.scripts import ROOT, cogpo_words, command, fails, inside, metrics, sft_words


def test_one_run_at_a_time_and_nothing_left_behind(tmp_path):
    out = tmp_path / "a" / "out"
    with locked(out):
        held_by = rf"out is in use by another run \(process {os.getpid()} on {socket.gethostname()}\)"
        with pytest.raises(UserError, match=held_by), locked(out):
            pass
        assert (out / NAME).exists(), "who is refused must not take the holder's file away"
    assert not out.exists()
    with locked(out):
        (out / "result").touch()
    assert [path.name for path in out.iterdir()] == ["result"]


def test_a_rank_that_is_not_the_first_needs_no_lock(tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    with locked(tmp_path / "out"):
        assert not (tmp_path / "out").exists()


def test_a_killed_holder_holds_nothing(tmp_path):
    code = f"import lock, time\nlock.take({str(tmp_path)!r})\nprint('held', flush=True)\ntime.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"held\n"
    with pytest.raises(UserError, match=f"process {process.pid} on "):
        take(tmp_path)
    process.kill()
    process.wait()
    with locked(tmp_path):
        assert f"process {os.getpid()} " in (tmp_path / NAME).read_text()


def test_a_file_where_the_folder_should_be(tmp_path):
    (tmp_path / "out").touch()
    with pytest.raises(UserError, match=r"out cannot hold results"):
        take(tmp_path / "out")


@pytest.mark.parametrize("script, words", [("train_sft.py", sft_words), ("train_cogpo.py", cogpo_words)])
def test_the_second_of_two_trainings_is_refused_and_the_first_undisturbed(tiny_qwen, files, tmp_path, script, words):
    line = words(tiny_qwen, files, tmp_path / "o", epochs=30)
    first = subprocess.Popen(command(script, *line, new=True), cwd=ROOT, stderr=subprocess.PIPE, text=True)
    try:
        end = time.monotonic() + 120
        while not (tmp_path / "o/metrics.jsonl").exists():
            assert first.poll() is None and time.monotonic() < end
            time.sleep(0.01)
        first.send_signal(signal.SIGSTOP)
        said = fails(script, *line)
        assert f"{tmp_path}/o is in use by another run (process {first.pid} on " in said
        first.send_signal(signal.SIGCONT)
        assert first.wait(timeout=240) == 0, first.stderr.read()
    finally:
        first.kill()
        first.wait()
    steps = [row["step"] for row in metrics(tmp_path / "o")]
    assert steps == list(range(len(steps))) and not (tmp_path / "o" / NAME).exists()
    inside(script, *line)  # already done
