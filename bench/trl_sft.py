"""SFT here against TRL's SFTTrainer with packing: supervised tokens a second and memory on the same chains.

    pip install -r bench/requirements.txt
    python bench/trl_sft.py                                      all cases of this machine (CPU, or one GPU)
    python bench/trl_sft.py --cases 135m:384 1.5b:4096           model shape : longest sequence

A step is all examples of the case, so both sides must report the same losses; the benchmark stops where they do not.
TRL packs with `bfd`, which cuts nothing here and keeps examples apart (with flash-attn through sequence lengths, else
through a mask over the whole row), into rows of the longest example's length and multiples of it. Its `wrapped` strategy
lets examples attend to each other and cuts them in two: another objective, shown but not compared.
"""

import argparse
import tempfile

import torch

from bench.common import environment_line, table
from bench.compare import Candidate, compare
from bench.trl_cogpo import CPU_CASES, CUDA_CASES, LR, attention
from bench.workload import SHAPES, chains, make_model, triads, write
from data.examples import DataConfig, load_sft
from data.render import Renderer
from model.load import load_tokenizer


def our_candidates(model, file, max_length, examples, steps, cuda):
    for checkpointing in (False, True):
        for budget in [scale * max_length for scale in ((1, 2, 4) if cuda else (1, 2))]:
            words = [
                f"model.path={model}", f"data.file={file}", f"data.max_length={max_length}", f"batch.size={examples}",
                f"batch.max_tokens={budget}", f"model.activation_checkpointing={str(checkpointing).lower()}",
                f"epochs={steps + 1}", f"optim.lr={LR}", "optim.warmup=0",
            ]  # fmt: skip
            settings = f"rows of {budget} tokens" + ", checkpointing" * checkpointing
            yield Candidate("ours", settings, "ours", {"script": "train_sft", "words": words})


def trl_candidates(model, file, max_length, steps, cuda):
    scales = (1, 2, 4) if cuda else (1, 2)
    plans = [("bfd", scale, checkpointing) for checkpointing in (False, True) for scale in scales]
    for strategy, scale, checkpointing in [*plans, ("wrapped", 1, False)]:
        for liger in (False, True) if cuda else (False,):
            args = {
                "per_device_train_batch_size": 1,
                "gradient_accumulation_steps": 1_000_000,  # all rows: a step ends with the epoch
                "num_train_epochs": steps + 1,
                "learning_rate": LR,
                "packing": True,
                "packing_strategy": strategy,
                "max_length": scale * max_length,
                "gradient_checkpointing": checkpointing,
                "use_liger_kernel": liger,
            }
            settings = f"{strategy}, rows of {scale * max_length} tokens" + ", checkpointing" * checkpointing
            spec = {"model": model, "file": file, "args": args, "model_args": attention(cuda)}
            yield Candidate("TRL", settings + ", Liger" * liger, "trl_sft", spec, same=strategy == "bfd")


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", help="MODEL:LENGTH, MODEL a shape of bench/workload.py or a folder")
    parser.add_argument("--problems", type=int, help="problems a step (three chains each)")
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
            rows = chains(triads(args.problems or (2 if shape == "135m" else 8), int(length)))
            file = write(f"{folder}/sft.jsonl", rows)
            sequences = load_sft(DataConfig(file, max_length=int(length)), Renderer(load_tokenizer(model))).sequences
            supervised = sum(len(s) - s.prompt_len for s in sequences)
            rows, ratios = compare(
                f"{case}, {len(rows)} examples",
                list(our_candidates(model, file, int(length), len(rows), args.steps, cuda)),
                list(trl_candidates(model, file, int(length), args.steps, cuda)),
                supervised, "tokens", args.repeats, args.threads, args.timeout,
            )  # fmt: skip
        print("\n" + table(rows), "", *(f"{name}: ours / TRL = {x:.2f}" for name, x in ratios.items()), sep="\n")


if __name__ == "__main__":
    main()
