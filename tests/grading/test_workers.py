"""The processes that compare symbolically: hangs, kills, threads, and what repeats itself endlessly."""

import asyncio
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from grading import workers
from grading.answers import compare, grade


def is_equal(pred, gold):
    return compare(pred, gold) == "equal"


def test_a_killed_worker_is_no_verdict(monkeypatch):
    monkeypatch.setattr(workers, "SECONDS", 60)
    assert is_equal("\\sqrt{8}", "2\\sqrt{2}")  # now there is an idle worker, which the next comparison takes
    worker = workers.WORKERS.idle[-1]
    killer = threading.Timer(0.5, worker.kill)
    killer.start()
    graded = grade("\\boxed{10^{10^{10}}}", "42")
    killer.join()
    assert graded.status == "error" and "exit status -9" in graded.detail
    assert is_equal("\\sqrt{8}", "2\\sqrt{2}")
    workers.WORKERS.idle[-1].kill()  # one that nobody waits for
    workers.WORKERS.idle[-1].wait()
    assert is_equal("\\sqrt{8}", "2\\sqrt{2}")
    worker = workers.WORKERS.idle[-1]
    worker.kill()
    worker.wait()
    monkeypatch.setattr(worker, "poll", lambda: None)  # as if it were killed between the look at it and the question
    assert grade("\\boxed{\\sqrt{8}}", "2\\sqrt{2}").status == "error"
    assert is_equal("\\sqrt{8}", "2\\sqrt{2}")


@pytest.mark.parametrize("tower", ["10^{10^{10}}", "9^{9^{9}}", "3^{10^8}", "(10^8)!"])
def test_a_hanging_comparison_is_a_timeout_and_the_next_one_works(tower, monkeypatch):
    monkeypatch.setattr(workers, "SECONDS", 0.5)
    start = time.monotonic()
    assert grade(f"\\boxed{{{tower}}}", "42").status == "timeout"
    assert not is_equal(tower, "42")
    assert time.monotonic() - start < 30  # twice half a second of processor time, and two starts of a worker
    monkeypatch.undo()
    assert compare("\\sqrt{8}", "2\\sqrt{2}") == "equal"


@pytest.mark.parametrize(
    "piece",
    [
        "\\boxed{",
        "\\boxed{1",
        "\\boxed{1} ",
        "{",
        "}",
        "$",
        "$ a",
        "\n",
        " ",
        "\\",
        "answer is ",
        "A:\n",
        "= ",
        "(a ",
        "9",
        "**",
        "<|a",
    ],
)
def test_endless_repetition_is_graded_quickly(piece, monkeypatch):
    monkeypatch.setattr(
        workers, "SECONDS", 0.5
    )  # of one symbolic comparison; extraction has no limit but its own speed
    start = time.process_time()
    for finished in (True, False):
        grade(piece * 30_000, "12", finished)
    grade(f"\\boxed{{{piece * 30_000}}}", "12")
    assert time.process_time() - start < 2


def test_from_threads_and_from_asyncio():
    pairs = [(f"\\sqrt{{{n * n * 2}}}", f"{n}\\sqrt{{2}}") for n in range(2, 12)]
    wrong = [(f"\\sqrt{{{n * n * 2}}}", f"{n + 1}\\sqrt{{2}}") for n in range(2, 12)]

    async def all_of_them():
        return await asyncio.gather(*(asyncio.to_thread(is_equal, *pair) for pair in pairs + wrong))

    assert asyncio.run(all_of_them()) == [True] * 10 + [False] * 10
    assert threading.active_count() < 50


def test_a_killed_caller_leaves_no_worker(tmp_path):
    code = (
        "import os, signal\nfrom grading import workers\n"
        "assert workers.WORKERS.compare('\\\\sqrt{8}', '2\\\\sqrt{2}', None)[0]\n"
        "print(workers.WORKERS.idle[0].pid, flush=True)\nos.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=Path.cwd())
    assert done.returncode == -9
    worker = Path("/proc") / done.stdout.strip()
    for _ in range(100):
        if not worker.exists() or "Z" in (worker / "stat").read_text().split()[2]:
            break
        time.sleep(0.1)
    else:
        pytest.fail("the worker process outlived its caller")
