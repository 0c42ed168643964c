"""runs/slurm.sh on two "nodes" of this machine: srun and scontrol are stand-ins, torchrun and the signals are real."""

import os
import signal
import stat
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# starts a task a node, as srun does; ends with the highest status of theirs
SRUN = """#!/usr/bin/env bash
while [[ $1 == --* ]]; do shift; done
for node in 0 1; do
    SLURM_PROCID=$node "$@" & pids[node]=$!
done
printf '%s\\n' "${pids[@]}" > tasks
highest=0
for pid in "${pids[@]}"; do
    wait "$pid"; status=$?
    ((status > highest)) && highest=$status
done
exit $highest
"""
SCONTROL = """#!/usr/bin/env bash
if [ "$1" = show ]; then printf 'localhost\\nlocalhost\\n'; else echo "$*" >> scontrol.log; fi
"""
# what the training scripts promise, without the training; each rank writes to a file of its own, whose lines stay whole
WORKER = """
import os, signal, sys, time
def say(*words):
    with open("rank-" + os.environ["RANK"], "a") as file:
        print(*words, file=file)
def stop(*_):
    time.sleep(1)  # a checkpoint takes its time
    say("written")
    os._exit(75)
signal.signal(signal.SIGTERM, stop)
say("of", os.environ["WORLD_SIZE"], *sys.argv[1:])
if "wait" in sys.argv:
    time.sleep(60)
sys.exit(2 * ("fail" in sys.argv))
"""


@pytest.fixture
def cluster(tmp_path):
    """A project root of its own: start(words) runs the batch script there."""
    (tmp_path / "bin").mkdir()
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(stat.S_IRWXU)
    (tmp_path / "train.py").write_text(WORKER)
    (tmp_path / "runs").symlink_to(ROOT / "runs")

    def start(*words):
        env = os.environ | {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "SLURM_JOB_ID": str(os.getpid())}
        env |= {"SLURM_JOB_NODELIST": "node[0-1]", "SLURM_NNODES": "2", "SLURM_GPUS_ON_NODE": "2"}
        env |= {"SLURM_CPUS_ON_NODE": "2", "SLURMD_NODENAME": "localhost"}
        log = (tmp_path / "log").open("w")
        return subprocess.Popen(
            ["bash", "runs/slurm.sh", *words], cwd=tmp_path, env=env, stdout=log, stderr=subprocess.STDOUT
        )

    return start


def said(tmp_path):
    """What every rank has written: {"rank-0": [line, …], …}"""
    return {file.name: file.read_text().splitlines() for file in tmp_path.glob("rank-*")}


def wait_for_ranks(process, tmp_path, count):
    end = time.monotonic() + 100
    while sum(map(bool, said(tmp_path).values())) < count:
        assert process.poll() is None and time.monotonic() < end, (tmp_path / "log").read_text()
        time.sleep(0.05)


def test_all_ranks_of_both_nodes_run_the_words(cluster, tmp_path):
    process = cluster("train.py", "loss.name=two words")
    assert process.wait(100) == 0, (tmp_path / "log").read_text()
    assert said(tmp_path) == {f"rank-{rank}": ["of 4 loss.name=two words"] for rank in range(4)}
    assert not (tmp_path / "scontrol.log").exists()


def test_preempted_every_rank_saves_and_the_job_is_requeued(cluster, tmp_path):
    """SIGTERM to the tasks, as SLURM sends it, and, as some sites do, to the batch shell."""
    process = cluster("train.py", "wait")
    wait_for_ranks(process, tmp_path, 4)
    for pid in (tmp_path / "tasks").read_text().split():
        os.kill(int(pid), signal.SIGTERM)
    process.send_signal(signal.SIGTERM)
    assert process.wait(100) == 75, (tmp_path / "log").read_text()
    assert [lines[1:] for lines in said(tmp_path).values()] == [["written"]] * 4
    assert (tmp_path / "scontrol.log").read_text() == f"requeue {os.getpid()}\n"


def test_an_error_is_not_requeued(cluster, tmp_path):
    process = cluster("train.py", "fail")
    assert process.wait(100) == 1
    assert not (tmp_path / "scontrol.log").exists()


def test_a_mistyped_script_is_one_line(cluster, tmp_path):
    assert cluster("train_cogop.py").wait(10) == 2
    assert (tmp_path / "log").read_text().startswith("error: from the project's root: sbatch")
