"""SFT here against TRL's SFTTrainer with packing: supervised tokens a second and memory on the same chains.

    pip install -r bench/requirements.txt
    python -m bench.trl_sft                                      all cases of this machine (CPU, or one GPU)
    python -m bench.trl_sft --cases 135m:384 1.5b:4096           model shape : longest sequence
    python -m bench.trl_sft --cases out/pocket/student:1024 --file out/pocket/crv/sft.jsonl

A step is all examples of the case, so both sides must report the same losses; the benchmark stops where they do not.
TRL packs with `bfd`, which cuts nothing here and keeps examples apart (with flash-attn through sequence lengths, else
through a mask over the whole row), into rows of the longest example's length and multiples of it. Its `wrapped`
strategy lets examples attend to each other and cuts them in two: another objective, shown but not compared.
"""

import sys

from bench.compare import LR, Candidate, attention, main, our_modes
from bench.workload import chains, triads, write
from data.dataset import DataConfig, load_sft
from data.render import Renderer
from model.load import load_tokenizer


def our_candidates(model, file, length, examples, steps, cuda):
    for checkpointing, compiled, mode in our_modes(cuda):
        for budget in (length, 4 * length if cuda else 2 * length):
            words = [
                f"model.path={model}", f"data.file={file}", f"data.max_length={length}", f"batch.size={examples}",
                f"batch.max_tokens={budget}", f"parallel.activation_checkpointing={checkpointing}",
                f"parallel.compile={compiled}", f"epochs={steps + 1}", f"optim.lr={LR}", "optim.warmup=0",
            ]  # fmt: skip
            settings = f"rows of {budget} tokens{mode}"
            yield Candidate("ours", settings, "ours", {"script": "train_sft", "words": words})


def trl_candidates(model, file, length, steps, cuda):
    scales = (1, 4) if cuda else (1, 2)
    plans = [("bfd", scale, checkpointing, cuda) for checkpointing in (False, True) for scale in scales]
    plans += [("bfd", 1, False, False)] * cuda + [("wrapped", 1, False, cuda)]
    for strategy, scale, checkpointing, liger in plans:
        args = {
            "per_device_train_batch_size": 1,
            "gradient_accumulation_steps": 1_000_000,  # all rows: a step ends with the epoch
            "num_train_epochs": steps + 1,
            "learning_rate": LR,
            "packing": True,
            "packing_strategy": strategy,
            "max_length": scale * length,
            "gradient_checkpointing": checkpointing,
            "use_liger_kernel": liger,
        }
        settings = f"{strategy}, rows of {scale * length} tokens" + ", checkpointing" * checkpointing
        spec = {"model": model, "file": file, "args": args, "model_args": attention(cuda)}
        yield Candidate("TRL", settings + ", Liger" * liger, "trl_sft", spec, same=strategy == "bfd")


def prepare(model, file, problems, length, steps, folder, cuda):
    file = file or write(f"{folder}/sft.jsonl", chains(triads(problems, length)))
    sequences = load_sft(DataConfig(file, max_length=length), Renderer(load_tokenizer(model))).sequences
    supervised = sum(len(s) - s.prompt_len for s in sequences)
    ours = list(our_candidates(model, file, length, len(sequences), steps, cuda))
    theirs = list(trl_candidates(model, file, length, steps, cuda))
    return f"{len(sequences)} examples", ours, theirs, supervised, "tokens"


if __name__ == "__main__":
    main(__doc__, prepare, sys.argv[1:])
