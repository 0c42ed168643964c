"""Runs against real LLM servers on CPU, `transformers serve` and llama-server: answers are poor, and none is lost."""

import importlib.util
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from tests.support.crv_cli import run, write_problems

NEEDS = ("fastapi", "uvicorn", "rich")  # pip install "transformers[serving]"
ROOT = Path(__file__).resolve().parents[2]
# the environment that runs these tests, as runs/setup.sh leaves it
HERE = os.environ | {"VIRTUAL_ENV": sys.prefix, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
MODEL = os.environ.get("STUDENT", "out/pocket/student")  # runs/pocket.sh makes one: SmolLM2-135M-Instruct


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.slow
@pytest.mark.skipif(not all(map(importlib.util.find_spec, NEEDS)), reason="needs transformers[serving]")
@pytest.mark.skipif(not Path(MODEL).exists(), reason=f"no model at {MODEL}; set STUDENT")
def test_a_small_model_on_a_real_server(tmp_path):
    problems, port = write_problems(tmp_path / "problems.jsonl", 3), free_port()
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", "--port", str(port), "--device", "cpu",
               "--default-seed", "0"]  # fmt: skip
    with (tmp_path / "server.log").open("w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 180
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                break
            except OSError:
                assert server.poll() is None and time.monotonic() < deadline, (tmp_path / "server.log").read_text()
                time.sleep(0.5)
        words = (f"endpoints.teacher.model={Path(MODEL).resolve()}", "endpoints.teacher.concurrency=2",
                 "max_rounds=1", "endpoints.teacher.timeout=120", "sampling.max_tokens=32",
                 "incorrect_tries=1", "probe=true", "sampling.top_k=null")  # fmt: skip
        done = run(problems, tmp_path / "out", f"http://127.0.0.1:{port}/v1", *words)
    finally:
        server.kill()
        server.wait()
    assert done.returncode == 0, done.stderr
    ends = [json.loads(line) for name in ("sft", "rejected") for line in (tmp_path / f"out/{name}.jsonl").open()]
    assert sorted(row["id"] for row in ends) == ["p1", "p2", "p3"]
    assert all(row["reason"] for row in ends if "outcome" in row)
    assert (tmp_path / "out/journal.jsonl").read_text().count("\n") >= 3
    (found,) = json.loads((tmp_path / "out/probe.json").read_text()).values()
    assert (found["thought"], found["top_k"], found["stream"]) == ("none", "refused", False)  # of transformers 5.23
    print(done.stderr)


@pytest.mark.slow
def test_llama_server_answers_as_the_model_in_process_and_nothing_is_asked_twice(tmp_path):
    """runs/real_server.sh on a few problems: client and server are killed, and greedy texts are the same."""
    words = ["bash", "runs/real_server.sh", "llama"]
    # coreutils' timeout ends the compiler, too
    done = subprocess.run(["timeout", "120", *words, "--install"], cwd=ROOT, env=HERE, capture_output=True, text=True)
    if done.returncode:
        why = "not in two minutes" if done.returncode == 124 else done.stderr.strip().splitlines()[-1:]
        pytest.skip(f"llama-server cannot be installed here: {why}; bash runs/real_server.sh llama --install")
    # the student itself, made on the way, in the place of a checkpoint: a training would take most of the time
    student = tmp_path / "real/llama/student"
    words += ["--problems", "8", "--tokens", "96", "--agents", "4", "--checkpoint", str(student)]
    words += ["--out", str(tmp_path / "real")]
    done = subprocess.run(words, cwd=ROOT, env=HERE, capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [line for line in done.stdout.splitlines() if line.startswith("| ")]
    names, crv, local, served = (
        [cell.strip() for cell in line.strip("|").split("|")] for line in lines if "---" not in line
    )
    rows = [dict(zip(names, row, strict=True)) for row in (crv, local, served)]
    assert [row["asked twice"] for row in rows] == ["0", "0", "0"] and int(rows[0]["responses"]) >= 8
    texts, verdicts = (int(rows[2][name].split("/")[0]) for name in ("texts equal", "verdicts equal"))
    assert texts >= 6 and verdicts >= 6  # of 8; float32 on both sides, summed in other orders
