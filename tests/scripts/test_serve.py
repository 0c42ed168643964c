"""runs/serve.sh with a `vllm` that serves vLLM's API without a model: servers start, die, are killed, and none is left.

With vLLM itself the same was walked by hand: it is 3 GB, and starts in minutes.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.scripts.test_recipes import needs_venv, warm

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [needs_venv, pytest.mark.slow]

# says what it was started with, has an engine as vLLM has (a process of its own), and answers each question with 7
VLLM = f"""#!{sys.executable}
import json, os, pathlib, subprocess, sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
here = pathlib.Path(os.environ["STUB"])
words = dict(zip(sys.argv[3::2], sys.argv[4::2]))
engine = subprocess.Popen(["sleep", "600"])
with (here / "started").open("a") as file:
    print(json.dumps(words | {{"folder": sys.argv[2], "gpus": os.environ["CUDA_VISIBLE_DEVICES"], "pid": os.getpid(),
        "engine": engine.pid, "path": os.environ.get("PYTHONPATH")}}), file=file)
if os.environ["CUDA_VISIBLE_DEVICES"] == os.environ.get("BROKEN"):
    print("(EngineCore pid=1) ERROR ValueError: No memory for the cache", *["noise"] * 50, sep="\\n", flush=True)
    sys.exit(1)
class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass
    def say(self, body):
        text = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)
    def do_GET(self):
        self.say({{"data": [{{"id": words["--served-model-name"], "max_model_len": int(words["--max-model-len"])}}]}})
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        time.sleep(float(os.environ.get("SLOW", 0)))
        with (here / "asked").open("a") as file:
            print(asked["model"], file=file)
        message = {{"role": "assistant", "content": "It is \\\\boxed{{7}}."}}
        self.say({{"model": asked["model"], "choices": [{{"index": 0, "message": message, "finish_reason": "stop"}}],
                  "usage": {{"prompt_tokens": 5, "completion_tokens": 5}}}})
ThreadingHTTPServer(("127.0.0.1", int(words["--port"])), Handler).serve_forever()
"""
CONFIG = """
out: out/eval
models: {a: models/a, b: models/b, c: no/such}
tables: {t: {columns: {A: a, B: b}}}
benchmarks: {sums: {file: sums.jsonl}}
max_new_tokens: 64
probe: false
"""
PROBLEMS = 6
ONE = "table walk 'tables.t.columns:={A: a}'"


@pytest.fixture
def recipe(tmp_path):
    """start(commands, **environment) runs a recipe's commands in a folder of its own, with two GPUs, number 4 and 5."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/vllm").write_text(VLLM)
    (tmp_path / "bin/vllm").chmod(0o755)
    for name in "ab":
        folder = tmp_path / "models" / name
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps({"max_position_embeddings": {"a": 4096, "b": 131072}[name]}))
        (folder / "model.safetensors").write_text(name)
    rows = [{"id": str(n), "problem": f"{n} + {7 - n}?", "answer": "7"} for n in range(PROBLEMS)]
    (tmp_path / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "walk.yaml").write_text(CONFIG)

    def start(commands="table walk", **environment):
        script = f"source runs/recipe.sh; cd {tmp_path}; paper=$PWD; export PYTHONPATH=$root; {commands}"
        env = os.environ | warm(launcher=False) | {"STUB": str(tmp_path), "GPUS": "2", "CUDA_VISIBLE_DEVICES": "4,5"}
        env |= {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"} | environment
        words = ["bash", "-c", script]
        # a shell in the background, as a suite may be, passes on that SIGINT is ignored, which no trap can undo
        heard = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
        begun.append(subprocess.Popen(words, cwd=ROOT, env=env, text=True, stdout=-1, stderr=-1, **heard))
        return begun[-1]

    begun = []
    yield start
    for process in begun:
        process.kill()


def lines(file):
    return file.read_text().splitlines() if file.exists() else []


def started(folder):
    return [json.loads(line) for line in lines(folder / "started")]


def alive(folder):
    """The servers' processes and their engines that run."""
    pids = [row[key] for row in started(folder) for key in ("pid", "engine")]
    return [pid for pid in pids if os.path.exists(f"/proc/{pid}")]


def until(condition, seconds=300):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def ended(process):
    """(exit status, stdout, stderr) of a recipe."""
    said = process.communicate(timeout=300)
    return process.returncode, *said


def test_each_model_has_a_server_on_every_gpu_and_is_asked_once(recipe, tmp_path):
    status, printed, said = ended(recipe())
    assert status == 0, said
    assert "| sums | 100.0 % (6/6) [61.0, 100.0] | 100.0 % (6/6) [61.0, 100.0] |" in printed
    servers = started(tmp_path)
    servers[:2], servers[2:] = (sorted(pair, key=lambda s: s["gpus"]) for pair in (servers[:2], servers[2:]))
    assert [(Path(s["folder"]).name, s["gpus"]) for s in servers] == [("a", "4"), ("a", "5"), ("b", "4"), ("b", "5")]
    # no longer than the model's window, and no longer than a response and its prompt
    assert [s["--max-model-len"] for s in servers] == ["4096", "4096", "8256", "8256"]
    assert all(s["--generation-config"] == "vllm" and s["--dtype"] == "float16" and not s["path"] for s in servers)
    assert all(a["--port"] != b["--port"] for a, b in (servers[:2], servers[2:])) and alive(tmp_path) == []

    # the same again: nothing to ask, no server; b trained again: b alone
    assert ended(recipe())[1] == printed and len(started(tmp_path)) == 4
    (tmp_path / "models/b/model.safetensors").write_text("trained again")
    assert ended(recipe(VLLM_FLAGS="--dtype float32"))[0] == 0
    assert [(Path(s["folder"]).name, s["--dtype"]) for s in started(tmp_path)[4:]] == [("b", "float32")] * 2
    assert len(lines(tmp_path / "asked")) == 3 * PROBLEMS


def test_a_model_that_needs_several_gpus_and_what_its_answers_are_kept_under(recipe, tmp_path):
    done = ended(recipe(f"split[a]=4; {ONE}; known_as a models/a; known_as c no/such"))
    (server,) = started(tmp_path)
    assert (server["gpus"], server["--tensor-parallel-size"]) == ("4,5", "2")
    label = server["--served-model-name"].removeprefix("a-")
    assert done[1].splitlines()[-2:] == [f"endpoint:a@{label}", "no/such"], done


def test_a_server_that_dies_is_shown_and_leaves_no_other(recipe, tmp_path):
    status, _, said = ended(recipe(ONE, BROKEN="5"))
    assert status == 2 and "error: a server ended" in said and "served/a-1.log" in said, said
    assert "ValueError: No memory for the cache" in said and "noise" in said and said.count("error:") == 1
    assert alive(tmp_path) == [] and lines(tmp_path / "asked") == []
    assert ended(recipe(ONE))[0] == 0  # the same command, once there is room


def test_what_is_wrong_on_paper_starts_no_server(recipe, tmp_path):
    status, _, said = ended(recipe("table walk no_such=1"))
    assert status == 2 and "no_such" in said and started(tmp_path) == []
    status, _, said = ended(recipe("table walk", SERVE="sglang"))
    assert status == 2 and "error: SERVE takes vllm or none, not sglang" in said


@pytest.mark.parametrize(
    ("when", "sent"),
    [("started", signal.SIGINT), ("started", signal.SIGKILL), ("asked", signal.SIGTERM), ("asked", signal.SIGKILL)],
)
def test_killed_at_any_point_it_leaves_no_server_and_resumes(recipe, tmp_path, when, sent):
    process = recipe(ONE, SLOW="1")
    until(lambda: len(lines(tmp_path / when)) >= 2)
    process.send_signal(sent)
    assert ended(process)[0] != 0
    until(lambda: alive(tmp_path) == [], 60)
    kept = len(lines(tmp_path / "out/eval/generations.jsonl"))
    status, printed, said = ended(recipe(ONE))
    assert status == 0 and "100.0 % (6/6)" in printed, said
    # what was kept is not asked again; what was in flight is
    assert len(lines(tmp_path / "asked")) <= 2 * PROBLEMS - kept and alive(tmp_path) == []
