"""What to run first on a machine with a GPU: bash runs/gpu_check.sh, about ten minutes, one table with the GPU's name.

No network, no installation; what a missing package would do is said and skipped. The most valuable comes first; what
the time does not reach is skipped. Without a GPU the same lines run in a small setting, where only the path counts.
"""

import argparse
import importlib.util
import json
import math
import re
import sys
import tempfile
import time
from pathlib import Path

import torch

from bench.harness import environment_line, run, table
from bench.versus_trl import chains, make_model, triads
from data.records import write_jsonl
from model.attention import ATTEND, backends_here, try_backend

CUDA = torch.cuda.is_available()
SHAPE, LENGTH, PROBLEMS, CONTEXTS = ("1.5b", 8192, 16, (16384, 32768, 65536)) if CUDA else ("tiny", 256, 2, (256,))
OPTIONAL = ("pytest", "flash_attn_interface", "flash_attn_2_cuda", "peft", "liger_kernel", "cut_cross_entropy")
END = time.monotonic() + (590 if CUDA else 7200)
TESTS = () if CUDA else ("tests/model/test_cuda.py", "-k", "head or packed or recomputation or sigterm")
HEAD = () if CUDA else ("--tokens", 256, "--vocabulary", 2048, "--hidden", 64)
rows = []


def add(what: str, found: object, ok: bool | None = None) -> None:
    """Keep a row of the table and show it. ok: None for a measurement that nothing is expected of."""
    rows.append({"what": what, "found": str(found).replace("|", "/"), "": {True: "ok", False: "FAILED", None: ""}[ok]})
    print(*rows[-1].values(), sep=" · ", flush=True)


def attempt(what: str, *words, limit: float) -> tuple[int, list[str]] | None:
    """Run Python with `words`: (exit status, lines of its output), or None if time is short, which a row then says."""
    limit = min(limit, END - time.monotonic()) if CUDA else 1800
    if limit < 15:
        return add(what, "skipped, no time left")
    _, said, status = run(*words, limit=limit, TEST_GPU="1" if CUDA else "cpu")
    return status, said.strip().splitlines() or ["no output"]


def train(what: str, script: str, out: Path, *words, limit: float, more: str = "") -> None:
    """Train, and add a row with what the last step took. more: stands behind it."""
    if done := attempt(what, script, f"out={out}", *words, limit=limit):
        if done[0]:
            return add(what, done[1][-1], False)
        steps = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        last, first = steps[-1], steps[0]["loss"]
        speed = (
            f"{last['seconds']:.2f} s a step, {last['tokens_per_second']:.0f} tokens/s, MFU {last.get('mfu', 0):.1%}"
        )
        memory = f"{max(s['memory_gib'] for s in steps):.1f} GiB ({last.get('reserved_gib', 0):.1f} reserved){more}"
        add(
            what, f"first loss {first:.6f}; {speed}; {memory}", "cogpo" not in script or abs(first - math.log(2)) < 1e-5
        )


def main() -> None:
    # the machine, and the kernels that are there
    missing = [name for name in OPTIONAL if not importlib.util.find_spec(name)]
    add("machine", environment_line())
    add("packages that are missing", ", ".join(missing) or "none")
    device = torch.device("cuda" if CUDA else "cpu")
    for name in ATTEND:
        if name in backends_here(device, torch.bfloat16):
            fault = try_backend(name, device, torch.bfloat16, 128)
            add(f"attention backend {name}", fault or "works", not fault)

    # head against float64, packed = single, recomputation, compile, scripts, offload, SIGTERM: pytest -m gpu
    words = ("-m", "pytest", "-m", "gpu", "-rA", "-q", "--tb=line", "-p", "no:cacheprovider", *TESTS)
    if "pytest" not in missing and (done := attempt("tests", *words, limit=240)):
        passed = sum(line.startswith("PASSED") for line in done[1])
        for line in done[1]:
            if found := re.match(r"(PASSED|FAILED|ERROR|SKIPPED) (?:\S+::)?(.+)", line):
                add(f"test: {found[2]}", found[1].lower(), None if found[1] == "SKIPPED" else found[1] == "PASSED")
        add("tests", f"{passed} passed, exit status {done[0]}", done[0] == 0)

    with tempfile.TemporaryDirectory() as name:
        # CogPO of a model with random weights: its memory beside the plan, and MFU
        folder, records = Path(name), triads(PROBLEMS, LENGTH)
        make_model(str(folder / "model"), SHAPE)
        write_jsonl(folder / "pairs.jsonl", records)
        write_jsonl(folder / "sft.jsonl", chains(records))
        common = [f"model.path={folder}/model", "batch.size=1000", "optim.lr=1e-6", "checkpoint.every_steps=1000"]
        rows_of = [f"data.max_length={LENGTH}", f"batch.max_tokens={2 * LENGTH}"]
        pairs = [*common, *rows_of, f"data.file={folder}/pairs.jsonl", f"reference_cache={folder}/reference"]
        gpu = torch.cuda.get_device_name() if CUDA else "A800"
        machine = ["--plan", "gpus=1", f"gpu={gpu}"]
        machine += [f"memory_gb={torch.cuda.get_device_properties(0).total_memory / 2**30}"] if CUDA else []
        for way in ("activation_checkpointing=full", "activation_checkpointing=auto", "compile=true"):
            what, words = f"CogPO of {SHAPE}, {way}", [*pairs, f"parallel.{way}"]
            plan = attempt(what, "train_cogpo.py", f"out={folder}/plan", *words, *machine, limit=30) or (1, [])
            said = "".join(f"; planned {line.split(' GiB')[0].split()[-1]}" for line in plan[1] if "together  " in line)
            train(what, "train_cogpo.py", folder / way, *words, "epochs=4", limit=100, more=said)

        # speed: the head beside others, one long sequence
        words = ("-m", "bench.head", *HEAD, "--repeats", 3, "--rows", "ours", "naive", "liger32", "cut")
        if done := attempt("the head", *words, limit=100):
            for line in done[1][-4:]:
                add("head: name, ms, ×, MB, ×, errors", line.strip("| ").replace(" | ", ", "))
        for length in CONTEXTS:
            turns = [{"role": "user", "content": "1"}, {"role": "assistant", "content": "0123456789" * (length // 10)}]
            write_jsonl(folder / "long.jsonl", [{"id": "a", "messages": turns}])
            words = [*common, f"data.file={folder}/long.jsonl", f"data.max_length={2 * length}", "epochs=3"]
            train(f"SFT, one sequence of {length} tokens", "train_sft.py", folder / f"{length}", *words, limit=60)
    print("\n" + table(rows))
    sys.exit(any(row[""] == "FAILED" for row in rows))


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()  # --help is an answer, and other words are refused
    main()
