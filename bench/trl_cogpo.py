"""CogPO here against TRL's DPOTrainer: pairs a second and memory on the same triads.

    pip install -r bench/requirements.txt
    python bench/trl_cogpo.py                                    all cases of this machine (CPU, or one GPU)
    python bench/trl_cogpo.py --cases 135m:384 1.5b:4096         model shape : longest sequence
    python bench/trl_cogpo.py --cases out/pocket/student:1024 --pairs out/pocket/crv/pairs.jsonl

A step is all pairs of the case. Ours runs `loss.name=cogpo` with three equal betas of 0.1, which is DPO at β = 0.1 (the
cost does not depend on β), so both trainers must report the same losses; the benchmark stops where they do not. TRL
gets its reference log-probs precomputed, nothing cut, nothing saved, and the best of its batch sizes, orders and
kernels that this machine can run. Its `padding_free` is left out: version 1.16 warns and ignores it.
"""

import argparse
import tempfile
from pathlib import Path

import torch

from bench.common import environment_line, table
from bench.compare import Candidate, compare
from bench.workload import SHAPES, make_model, triads, write

LR = 1e-5
CPU_CASES = ["tiny:1024", "135m:384"]
CUDA_CASES = [f"{shape}:{length}" for shape in ("1.5b", "7b") for length in (2048, 4096, 8192, 16384)]


def our_candidates(model, file, max_length, pairs, steps, cuda):
    budgets = (max_length * 2, 32768) if cuda else (1, 4096)
    for checkpointing in (False, True):
        for budget in budgets:
            words = [
                f"model.path={model}", f"data.file={file}", f"data.max_length={max_length}", f"batch.size={pairs}",
                f"batch.max_tokens={budget}", f"model.activation_checkpointing={str(checkpointing).lower()}",
                f"epochs={steps + 1}", f"optim.lr={LR}", "optim.warmup=0", "loss.name=cogpo",
                "loss.betas=[0.1, 0.1, 0.1]",
            ]  # fmt: skip
            row = "a problem a row" if budget == 1 else f"rows of {budget} tokens"
            settings = row + ", checkpointing" * checkpointing
            yield Candidate("ours", settings, "ours", {"script": "train_cogpo", "words": words})


def trl_candidates(model, file, pairs, steps, cuda):
    sizes = [n for n in ((1, 2, 4, 8) if cuda else (1, 2)) if pairs % n == 0]
    plans = [(n, False, False) for n in sizes] + [(sizes[-1], True, False), (1, False, True)]
    plans += [(sizes[-1], False, True)] * cuda  # long chains on a GPU may leave no other choice
    for size, by_length, checkpointing in plans:
        for liger in (False, True) if cuda else (False,):
            args = {
                "per_device_train_batch_size": size,
                "gradient_accumulation_steps": pairs // size,
                "num_train_epochs": steps + 1,
                "learning_rate": LR,
                "beta": 0.1,
                "max_length": None,
                "precompute_ref_log_probs": True,
                "gradient_checkpointing": checkpointing,
                "use_liger_kernel": liger,
            }
            if by_length:
                args |= {"train_sampling_strategy": "group_by_length", "remove_unused_columns": False}
            settings = f"{size} pairs a batch" + ", by length" * by_length + ", checkpointing" * checkpointing
            spec = {"model": model, "file": file, "args": args, "model_args": attention(cuda)}
            yield Candidate("TRL", settings + ", Liger" * liger, "trl_dpo", spec)


def attention(cuda):
    """The fastest kernel that TRL can use here: the flash-attn package if it is installed, else torch's."""
    from transformers.utils import is_flash_attn_2_available

    return {"attn_implementation": "flash_attention_2" if cuda and is_flash_attn_2_available() else "sdpa"}


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", help="MODEL:LENGTH, MODEL a shape of bench/workload.py or a folder")
    parser.add_argument("--pairs", help="a pairs.jsonl to take the first pairs from, instead of random triads")
    parser.add_argument("--problems", type=int, help="problems of random triads a step (three pairs each)")
    parser.add_argument("--steps", type=int, default=2, help="steps that are timed, after the first")
    parser.add_argument("--repeats", type=int, default=3, help="runs of the best settings of each side, in turns")
    parser.add_argument("--threads", type=int, help="OMP_NUM_THREADS of both sides")
    parser.add_argument("--timeout", type=float, help="seconds after which a run counts as failed")
    args = parser.parse_args(argv)
    cuda = torch.cuda.is_available()
    print(environment_line("trl", "peft", "liger-kernel", "flash-attn"), flush=True)
    for case in args.cases or (CUDA_CASES if cuda else CPU_CASES):
        shape, length = case.rsplit(":", 1)
        with tempfile.TemporaryDirectory() as folder:
            model = make_model(f"{folder}/model", shape) if shape in SHAPES else shape
            if args.pairs:
                lines = Path(args.pairs).read_text().splitlines(keepends=True)[: 3 * (args.problems or 8)]
                Path(f"{folder}/pairs.jsonl").write_text("".join(lines))
                file, pairs = f"{folder}/pairs.jsonl", len(lines)
            else:
                rows = triads(args.problems or (2 if shape == "135m" else 8), int(length))
                file, pairs = write(f"{folder}/pairs.jsonl", rows), len(rows)
            rows, ratios = compare(
                f"{case}, {pairs} pairs",
                list(our_candidates(model, file, int(length), pairs, args.steps, cuda)),
                list(trl_candidates(model, file, pairs, args.steps, cuda)),
                pairs, "pairs", args.repeats, args.threads, args.timeout,
            )  # fmt: skip
        print("\n" + table(rows), "", *(f"{name}: ours / TRL = {x:.2f}" for name, x in ratios.items()), sep="\n")


if __name__ == "__main__":
    main()
