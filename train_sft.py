"""Phase 1 (§3.1): supervised fine-tuning on packed sequences.

    python train_sft.py --config configs/pocket/sft.yaml                               one process, CPU or one GPU
    torchrun --nproc_per_node 8 train_sft.py --config configs/paper/crv_sft_7b.yaml    eight GPUs, sharded

The loss of a step is the sum over its supervised tokens divided by their global count, whatever the packing, the
number of micro-batches or of ranks. Run the same command again to go on after a stop, of whatever kind.
"""

import time
from dataclasses import dataclass, field
from pathlib import Path

from config import at_least_one, check_output, claim_output, run_cli
from data.examples import BatchConfig, DataConfig, load_sft
from data.packing import pack, plan_epoch, plan_micro_batches
from data.render import Renderer
from losses import sft_loss
from model import checkpoint as ckpt
from model.load import ModelConfig, load_model, load_tokenizer, resolve_dtype
from model.logprobs import LogProbModel
from model.metrics import Metrics
from model.optim import OptimConfig, apply_step, lr_at, make_optimizer
from model.parallel import Ranks, shard
from progress import Progress, say


@dataclass
class Config:
    out: str
    """output folder: model/ (Hugging Face format), metrics.jsonl, config.yaml, checkpoints/ while running"""
    model: ModelConfig
    data: DataConfig
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(lr=1e-5))
    batch: BatchConfig = field(default_factory=BatchConfig)
    checkpoint: ckpt.CheckpointConfig = field(default_factory=ckpt.CheckpointConfig)
    epochs: int = 3
    """passes over the data (Table 8)"""
    seed: int = 0
    """order of the examples"""


FREE = ("checkpoint",)  # keys that may change when a run is resumed


def main(cfg):
    at_least_one(cfg, "epochs", "batch.size", "batch.max_tokens", "checkpoint.every_steps", "checkpoint.keep")
    ranks = Ranks()
    check_output(cfg, cfg.out, FREE)
    if ckpt.is_done(cfg.out):
        say(f"already done: {cfg.out}/{ckpt.FINAL}")
        return

    tokenizer = load_tokenizer(cfg.model.path)
    examples = load_sft(cfg.data, Renderer(tokenizer))
    plan = [step for epoch in range(cfg.epochs) for step in plan_epoch(examples.units, cfg.batch.size, cfg.seed, epoch)]
    say(
        f"{len(examples.units)} examples, {sum(examples.lengths)} tokens, {examples.dropped} dropped as too long; "
        f"{len(plan)} steps on {ranks.count} x {ranks.device.type}"
    )

    lm = load_model(cfg.model, ranks.device, tokenizer)
    if ranks.is_main:
        claim_output(cfg, cfg.out, FREE)
    model = shard(LogProbModel(lm), ranks, resolve_dtype(cfg.model.compute_dtype, ranks.device))
    optimizer = make_optimizer(cfg.optim, model)
    inputs = {"data.file": examples.digest()}
    resumed = ckpt.load_latest(Path(cfg.out) / "checkpoints", model, optimizer, inputs)
    train(cfg, ranks, examples, plan, model, optimizer, resumed["step"] if resumed else 0, inputs)
    ckpt.export(cfg, model, tokenizer, ranks)
    say(f"model in {cfg.out}/{ckpt.FINAL}, metrics in {cfg.out}/metrics.jsonl")


def train(cfg, ranks, examples, plan, model, optimizer, start, inputs):
    sequences, units = examples.sequences, examples.units
    metrics = Metrics(Path(cfg.out) / "metrics.jsonl", start, ranks)
    with Progress(len(plan), "sft", initial=start, unit="step") as bar:
        for step in range(start, len(plan)):
            began = time.perf_counter()
            num_tokens = sum(len(sequences[s]) for u in plan[step] for s in units[u].seqs)
            num_supervised = num_tokens - sum(sequences[s].prompt_len for u in plan[step] for s in units[u].seqs)
            total = 0.0
            micro_batches = plan_micro_batches(plan[step], units, examples.lengths, cfg.batch.max_tokens, ranks.count)[
                ranks.rank
            ]
            for micro in micro_batches:
                picked = [s for u in micro for s in units[u].seqs]
                batch = pack([sequences[s] for s in picked or [0]]).to(ranks.device)
                logps = model(batch)
                loss = sft_loss(logps, float(bool(picked))) / num_supervised  # an empty micro-batch weighs nothing
                loss.backward()
                total = total + loss.detach()
            total = ranks.sum(total).item()
            lr = lr_at(cfg.optim, step, len(plan))
            norm = apply_step(cfg.optim, model, optimizer, lr, total, step)
            rate = num_tokens / (time.perf_counter() - began)
            metrics.log(step=step, loss=total, lr=lr, grad_norm=norm, tokens=num_tokens, tokens_per_second=rate)
            bar.update(loss=total, tok_s=round(rate))
            if (step + 1) % cfg.checkpoint.every_steps == 0 and step + 1 < len(plan):
                ckpt.save(cfg, step + 1, model, optimizer, {"inputs": inputs}, ranks)
    metrics.close()


if __name__ == "__main__":
    run_cli(main, Config, __doc__)
