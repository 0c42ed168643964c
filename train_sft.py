"""Phase 1 (§3.1): supervised fine-tuning on packed sequences.

    python train_sft.py --config configs/pocket/sft.yaml                               one process, CPU or one GPU
    torchrun --nproc_per_node 8 train_sft.py --config configs/paper/crv_sft_7b.yaml    eight GPUs, sharded

The loss of a step is the sum over its supervised tokens divided by their global count, whatever the packing, the
number of micro-batches or of ranks. Run the same command again to go on after a stop, of whatever kind.
"""

from dataclasses import dataclass, field, replace

import torch

from config import at_least_one, check_output, claim_output, flat, run_cli
from data.dataset import BatchConfig, DataConfig, HeldOutConfig, count_tokens, load_sft, plan_step
from data.packing import pack, plan_epoch, plan_stats
from data.render import Renderer
from losses import sft_loss
from model.checkpoint import CheckpointConfig, Saver
from model.export import FOLDER, export, is_done
from model.flops import device_peak, quadratic, shape_of, train_flops
from model.load import ModelConfig, load_config, load_policy, load_tokenizer, warn_of_length
from model.lora import LoraConfig, check_lora
from model.metrics import Metrics, Speed, WatchConfig, finish_metrics, shown
from model.optim import OptimConfig, apply_step, check_optim, lr_at, make_optimizer
from model.parallel import ParallelConfig, Ranks, reshard
from model.plan import PlanConfig, assume_examples, show_plan
from model.preempt import Preemption
from model.stream import WeightFiles
from progress import Progress, cosmetic, say


@dataclass
class Config:
    out: str
    """output folder: model/ (Hugging Face format), metrics.jsonl, plots.png, tensorboard/, config.yaml, and while
    running checkpoints/"""
    model: ModelConfig
    data: DataConfig
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(lr=1e-5))
    batch: BatchConfig = field(default_factory=BatchConfig)
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    lora: LoraConfig = field(default_factory=LoraConfig)
    heldout: HeldOutConfig = field(default_factory=HeldOutConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    watch: WatchConfig = field(default_factory=WatchConfig)
    epochs: int = 3
    """passes over the data (Table 8)"""
    seed: int = 0
    """order of the examples, and LoRA's initial values"""
    plan: bool = False
    """only print what the run will need in memory and hours, before anything is loaded (--plan)"""
    plan_for: PlanConfig = field(default_factory=PlanConfig)


# keys that may change when a run is resumed; how it is spread over the ranks changes nothing it computes
FREE = ("checkpoint", "heldout", "parallel", "watch", "plan", "plan_for")


def main(cfg):
    at_least_one(
        cfg, "epochs", "batch.size", "batch.max_tokens", "checkpoint.every_steps", "checkpoint.keep",
        "heldout.every_steps", "parallel.replicate", "data.limit",
    )  # fmt: skip
    check_optim(cfg.optim)
    check_lora(cfg.lora)
    if cfg.plan:
        read = not cfg.plan_for.examples
        examples = load_sft(cfg.data, Renderer(load_tokenizer(cfg.model.path))) if read else assume_examples(cfg)
        return print(show_plan(cfg, load_config(cfg.model.path), examples))
    stop, ranks = Preemption(), Ranks()
    check_output(cfg, cfg.out, FREE)
    if ranks.broadcast(is_done(cfg.out)):
        return say(f"already done: {cfg.out}/{FOLDER}")

    tokenizer = load_tokenizer(cfg.model.path)
    renderer = Renderer(tokenizer)
    examples = load_sft(cfg.data, renderer)
    heldout = load_sft(replace(cfg.data, file=cfg.heldout.file, limit=None), renderer) if cfg.heldout.file else None
    model_config = load_config(cfg.model.path)
    plan = [step for epoch in range(cfg.epochs) for step in plan_epoch(examples.units, cfg.batch.size, cfg.seed, epoch)]
    say(
        f"{len(examples.units)} examples, {sum(examples.lengths)} tokens, {examples.dropped} dropped as too long; "
        f"{len(plan)} steps on {ranks.count} x {ranks.device.type}"
    )

    warn_of_length(cfg.model, model_config, max(examples.lengths))
    model = load_policy(cfg.model, ranks, tokenizer, cfg.parallel, cfg.lora, cfg.seed)
    if ranks.is_main:
        claim_output(cfg, cfg.out, FREE)
    optimizer = make_optimizer(cfg.optim, model)
    inputs = {"data.file": examples.digest()}
    if cfg.lora.rank:  # checkpoints then hold the adapters alone
        inputs["model.path"] = ranks.broadcast(WeightFiles(cfg.model.path).digest() if ranks.is_main else None)
    saver = Saver(cfg, ranks, stop)
    resumed = saver.load_latest(model, optimizer, inputs)
    start = resumed["step"] if resumed else 0
    shape = shape_of(model_config)
    metrics = train(cfg, ranks, saver, shape, examples, heldout, plan, model, optimizer, start, inputs)
    export(cfg, model, tokenizer, ranks)  # first: nothing that only shows the run may cost its model
    say(f"model in {cfg.out}/{FOLDER}, metrics in {cfg.out}/metrics.jsonl, curves in {cfg.out}/plots.png")
    with cosmetic("held-out loss of the trained model"):
        if heldout:
            metrics.log(step=len(plan), **evaluate(cfg, ranks, shape, heldout, model))
    finish_metrics(metrics, cfg.out)
    ranks.close()


def micro_loss(model, examples, micro, device):
    """Loss of a micro-batch, summed over its supervised tokens. An empty one runs a sequence that weighs nothing."""
    picked = [s for u in micro for s in examples.units[u].seqs]
    batch = pack([examples.sequences[s] for s in picked or [0]]).to(device)
    return sft_loss(model(batch), float(bool(picked)))


def train(cfg, ranks, saver, shape, examples, heldout, plan, model, optimizer, start, inputs):
    metrics = Metrics(cfg.out, cfg.watch, start, ranks, flat(cfg))
    speed = Speed(ranks, device_peak(ranks.device))
    with saver, Progress(len(plan), "sft", initial=start, unit="step") as bar:
        for step in range(start, len(plan)):
            # the held-out loss of a line belongs to the same weights as its training loss: those before the update
            watched = step % cfg.heldout.every_steps == 0
            held = evaluate(cfg, ranks, shape, heldout, model) if heldout and watched else {}
            speed.start()
            everywhere = plan_step(plan[step], examples, cfg.batch, ranks.count, quadratic(shape))
            lengths, num_supervised = count_tokens(examples, everywhere)
            total = 0.0
            for micro in everywhere[ranks.rank]:
                loss = micro_loss(model, examples, micro, ranks.device) / num_supervised
                loss.backward()
                total = total + loss.detach()
            total = ranks.sum(total).item()
            lr = lr_at(cfg.optim, step, len(plan))
            norm = apply_step(cfg.optim, model, optimizer, lr, total, step)
            fast = speed.read(sum(lengths), train_flops(shape, lengths, num_supervised, cfg.lora.rank))
            packing = plan_stats(everywhere, examples.units, examples.lengths, cfg.batch.max_tokens, quadratic(shape))
            metrics.log(step=step, loss=total, lr=lr, grad_norm=norm, tokens=sum(lengths), **fast, **packing, **held)
            bar.update(loss=total, **shown(fast))
            saver.after_step(step + 1, len(plan), model, optimizer, {"inputs": inputs})
    return metrics


def evaluate(cfg, ranks, shape, heldout, model):
    """{"eval/loss": mean over the supervised tokens of the held-out examples}."""
    everywhere = plan_step(heldout.everything, heldout, cfg.batch, ranks.count, quadratic(shape))
    total = torch.zeros((), device=ranks.device)
    with torch.no_grad():
        for micro in everywhere[ranks.rank]:
            total += micro_loss(model, heldout, micro, ranks.device)
    reshard(model)
    return {"eval/loss": ranks.sum(total).item() / count_tokens(heldout, everywhere)[1]}


if __name__ == "__main__":
    run_cli(main, Config, __doc__)
