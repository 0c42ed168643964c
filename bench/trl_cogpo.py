"""CogPO here against TRL's DPOTrainer: pairs a second and memory on the same triads.

    pip install -r bench/requirements.txt
    python -m bench.trl_cogpo                                    all cases of this machine (CPU, or one GPU)
    python -m bench.trl_cogpo --cases 135m:384 1.5b:4096         model shape : longest sequence
    python -m bench.trl_cogpo --cases out/pocket/student:1024 --file out/pocket/crv/pairs.jsonl

A step is all pairs of the case. Ours runs `loss.name=cogpo` with three equal betas of 0.1, which is DPO at β = 0.1 (the
cost does not depend on β), so both trainers must report the same losses; the benchmark stops where they do not. TRL
gets its reference log-probs precomputed, nothing cut, nothing saved, and the best of its batch sizes, orders and
kernels that this machine can run. Its `padding_free` is left out: version 1.16 warns and ignores it.
"""

import sys
from pathlib import Path

from bench.compare import LR, Candidate, attention, main, our_modes
from bench.workload import triads, write


def our_candidates(model, file, length, pairs, steps, cuda):
    budgets = (2 * length,) if cuda else (1, 4096)
    for checkpointing, compiled, mode in our_modes(cuda):
        for budget in budgets:
            words = [
                f"model.path={model}", f"data.file={file}", f"data.max_length={length}", f"batch.size={pairs}",
                f"batch.max_tokens={budget}", f"parallel.activation_checkpointing={checkpointing}",
                f"parallel.compile={compiled}", f"epochs={steps + 1}", f"optim.lr={LR}", "optim.warmup=0",
                "loss.name=cogpo", "loss.betas=[0.1, 0.1, 0.1]",
            ]  # fmt: skip
            row = "a problem a row" if budget == 1 else f"rows of {budget} tokens"
            settings = row + mode
            yield Candidate("ours", settings, "ours", {"script": "train_cogpo", "words": words})


def trl_candidates(model, file, pairs, steps, cuda):
    sizes = [n for n in ((1, 4) if cuda else (1, 2)) if pairs % n == 0]
    plans = [(n, False, False, cuda) for n in sizes] + [(sizes[-1], True, False, cuda), (1, False, True, cuda)]
    if cuda:
        plans += [(sizes[-1], False, True, True), (1, False, False, False)]
    for size, by_length, checkpointing, liger in plans:
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


def prepare(model, file, problems, length, steps, folder, cuda):
    file = file or write(f"{folder}/pairs.jsonl", triads(problems, length))
    pairs = len(Path(file).read_text().splitlines())
    ours = list(our_candidates(model, file, length, pairs, steps, cuda))
    return f"{pairs} pairs", ours, list(trl_candidates(model, file, pairs, steps, cuda)), pairs, "pairs"


if __name__ == "__main__":
    main(__doc__, prepare, sys.argv[1:])
