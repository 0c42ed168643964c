"""Phase 2 (§3.3): CogPO, and its baselines DPO, β-DPO and SimPO, by `loss.name`.

    python train_cogpo.py --config configs/pocket/cogpo.yaml                             one process, CPU or one GPU
    torchrun --nproc_per_node 8 train_cogpo.py --config configs/paper/cogpo_7b.yaml      eight GPUs, sharded
    … loss.name=dpo out=out/dpo                                                          a baseline on the same pairs

Before anything is trained or resumed, the reference log-prob of every unique response is computed once and kept on
disk. The loss of a step is the sum over its pairs divided by their global count, whatever the packing, the number of
micro-batches or of ranks; each unique response of a problem is run forward and backward once, however many pairs it is
in. Run the same command again to go on after a stop, of whatever kind.
"""

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import torch

from config import at_least_one, check_output, claim_output, flat, run_cli
from data.dataset import (
    BatchConfig,
    DataConfig,
    HeldOutConfig,
    count_tokens,
    load_pairs,
    plan_step,
    sequences_saved,
    unique_seqs,
)
from data.packing import pack, plan_epoch, plan_stats
from data.render import Renderer
from errors import UserError
from losses import PairLoss, beta_dpo_loss, cogpo_loss, dpo_loss, simpo_loss
from model.checkpoint import CheckpointConfig, Saver
from model.export import FOLDER, export, is_done
from model.flops import device_peak, quadratic, shape_of, train_flops
from model.load import ModelConfig, load_config, load_policy, load_tokenizer, resolve_dtype, warn_of_length
from model.logprobs import response_sums
from model.lora import LoraConfig, check_lora
from model.metrics import GapStats, Metrics, Speed, WatchConfig, finish_metrics, shown
from model.optim import OptimConfig, apply_step, check_optim, lr_at, make_optimizer
from model.parallel import ParallelConfig, Ranks, reshard
from model.plan import PlanConfig, assume_examples, show_plan
from model.preempt import Preemption
from model.reference import cache_key, reference_logps
from model.stream import WeightFiles
from progress import Progress, cosmetic, say


@dataclass
class LossConfig:
    name: Literal["cogpo", "dpo", "beta_dpo", "beta_cogpo", "simpo"] = "cogpo"
    """cogpo: Eq. 3. dpo: Eq. 2. beta_dpo: Eq. 4. beta_cogpo: Eq. 4 on CogPO's three betas. simpo: no reference,
    length-normalised"""
    betas: tuple[float, float, float] = (0.1, 0.2, 0.5)
    """cogpo, beta_cogpo: β of the small, medium and large gap (A.2)"""
    beta: float = 0.1
    """dpo, beta_dpo (Table 8)"""
    simpo_beta: float = 2.0
    """simpo (Table 8)"""
    simpo_gamma: float = 0.3
    """simpo: absolute margin inside the sigmoid (Table 8)"""
    alpha: float = 0.6
    """beta_dpo, beta_cogpo: how strongly β follows the differential, per nat (the original's example; the paper is
    silent)"""
    m0: float = 0.0
    """beta_dpo, beta_cogpo: the predefined threshold M0, nats"""
    beta_ceiling: float = 1.0
    """beta_dpo, beta_cogpo: largest β; summed over long chains, differentials reach tens of nats"""
    nll_weight: float = 0.0
    """any loss: weight of an added −log π(y_w)/|y_w|, the chosen response's mean NLL, averaged over pairs"""


@dataclass
class Config:
    out: str
    """output folder: model/ (Hugging Face format), metrics.jsonl, plots.png, tensorboard/, config.yaml, and while
    running checkpoints/"""
    model: ModelConfig
    data: DataConfig
    loss: LossConfig = field(default_factory=LossConfig)
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(lr=5e-7))
    batch: BatchConfig = field(default_factory=BatchConfig)
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    lora: LoraConfig = field(default_factory=LoraConfig)
    heldout: HeldOutConfig = field(default_factory=HeldOutConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    watch: WatchConfig = field(default_factory=WatchConfig)
    reference_cache: str = "out/reference"
    """folder of reference log-probs, shared by all runs that start from the same weights"""
    epochs: int = 1
    """passes over the pairs (Table 8)"""
    seed: int = 0
    """order of the pairs, and LoRA's initial values"""
    plan: bool = False
    """only print what the run will need in memory and hours, before anything is loaded (--plan)"""
    plan_for: PlanConfig = field(default_factory=PlanConfig)


# keys that may change when a run is resumed; how it is spread over the ranks changes nothing it computes
FREE = ("checkpoint", "reference_cache", "heldout", "parallel", "watch", "plan", "plan_for")


def main(cfg):
    at_least_one(
        cfg, "epochs", "batch.size", "batch.max_tokens", "checkpoint.every_steps", "checkpoint.keep",
        "heldout.every_steps", "parallel.replicate", "data.limit",
    )  # fmt: skip
    check_optim(cfg.optim)
    check_lora(cfg.lora)
    has_reference = cfg.loss.name != "simpo"
    if cfg.plan:
        if cfg.plan_for.examples:
            examples = assume_examples(cfg, triads=True)
        else:
            examples = load_pairs(cfg.data, Renderer(load_tokenizer(cfg.model.path)), cfg.batch.group_by_problem)
        return print(show_plan(cfg, load_config(cfg.model.path), examples, has_reference))
    stop, ranks = Preemption(), Ranks()
    check_output(cfg, cfg.out, FREE)
    if ranks.broadcast(is_done(cfg.out)):
        return say(f"already done: {cfg.out}/{FOLDER}")

    tokenizer = load_tokenizer(cfg.model.path)
    renderer = Renderer(tokenizer)
    examples, heldout = load_pairs(cfg.data, renderer, cfg.batch.group_by_problem), None
    if cfg.heldout.file:
        heldout = load_pairs(replace(cfg.data, file=cfg.heldout.file, limit=None), renderer, cfg.batch.group_by_problem)
    model_config = load_config(cfg.model.path)
    num_pairs = sum(u.items for u in examples.units)
    plan = [step for epoch in range(cfg.epochs) for step in plan_epoch(examples.units, cfg.batch.size, cfg.seed, epoch)]
    say(
        f"{num_pairs} pairs over {len(examples.sequences)} unique responses ({sequences_saved(examples.units)} of "
        f"{2 * num_pairs} passes saved), {sum(examples.lengths)} tokens, {examples.dropped} pairs dropped as too long; "
        f"{len(plan)} steps on {ranks.count} x {ranks.device.type}"
    )

    warn_of_length(cfg.model, model_config, max(examples.lengths))
    model = load_policy(cfg.model, ranks, tokenizer, cfg.parallel, cfg.lora, cfg.seed)
    if ranks.is_main:
        claim_output(cfg, cfg.out, FREE)
    weights = ranks.broadcast(WeightFiles(cfg.model.path).digest() if ranks.is_main else None)
    shape = shape_of(model_config)
    if has_reference:  # before anything is trained or resumed: the model still is the reference
        compute_dtype = resolve_dtype(cfg.model.compute_dtype, ranks.device)
        cache = Path(cfg.reference_cache) / cache_key(weights, compute_dtype, model.lm.config.packed_backend)
        first_epoch = plan_epoch(examples.units, cfg.batch.size, cfg.seed, epoch=0)
        examples.ref_logps = reference(cfg, ranks, shape, examples, first_epoch, model, cache)
        if heldout:
            heldout.ref_logps = reference(cfg, ranks, shape, heldout, [heldout.everything], model, cache)

    optimizer = make_optimizer(cfg.optim, model)
    inputs = {"data.file": examples.digest(), "model.path": weights}  # the reference follows model.path
    saver = Saver(cfg, ranks, stop)
    resumed = saver.load_latest(model, optimizer, inputs)
    start = resumed["step"] if resumed else 0
    metrics = train(cfg, ranks, saver, shape, examples, heldout, plan, model, optimizer, start, inputs)
    export(cfg, model, tokenizer, ranks)  # first: nothing that only shows the run may cost its model
    say(f"model in {cfg.out}/{FOLDER}, metrics in {cfg.out}/metrics.jsonl, curves in {cfg.out}/plots.png")
    with cosmetic("held-out values of the trained model"):
        if heldout:
            metrics.log(step=len(plan), **evaluate(cfg, ranks, shape, heldout, model))
    finish_metrics(metrics, cfg.out)
    ranks.close()


def reference(cfg, ranks, shape, examples, steps, model, folder):
    """log π_ref of every unique response, float32 [R], in the micro-batches of `steps` (model/reference.py)."""
    micro_batches = [
        unique_seqs(micro, examples.units)
        for step in steps
        for micro in plan_step(step, examples, cfg.batch, ranks.count, quadratic(shape))[ranks.rank]
    ]
    return reference_logps(model, examples.sequences, micro_batches, folder, ranks).to(ranks.device)


def local_batch(micro, examples, device):
    """A packed batch of a micro-batch's unique responses, and its pairs as indices into them.

    Returns (PackedBatch, sequence indices [S], chosen [P], rejected [P], gap [P]). An empty micro-batch becomes one
    sequence and no pairs, so that every rank runs the same collectives.
    """
    seqs = unique_seqs(micro, examples.units) or [0]
    place = {s: i for i, s in enumerate(seqs)}
    pairs = [(place[p.chosen], place[p.rejected], p.gap) for u in micro for p in examples.units[u].payload]
    chosen, rejected, gap = torch.tensor(pairs, dtype=torch.int64, device=device).reshape(-1, 3).unbind(1)
    return pack([examples.sequences[s] for s in seqs]).to(device), seqs, chosen, rejected, gap


@dataclass
class MicroResult:
    """What a micro-batch of pairs gives. loss: [], a sum over pairs, not divided; preference: the same without NLL."""

    loss: torch.Tensor
    preference: torch.Tensor
    pairs: PairLoss
    gap: torch.Tensor
    chosen_logps: torch.Tensor
    rejected_logps: torch.Tensor


def run_micro_batch(cfg, examples, micro, model, device):
    """Forward pass and loss of one micro-batch."""
    batch, seqs, chosen, rejected, gap = local_batch(micro, examples, device)
    logps = response_sums(model(batch), batch)
    refs = None if examples.ref_logps is None else examples.ref_logps[seqs]
    mean_logps = logps / torch.tensor(batch.response_lens, device=device)
    pairs = pair_losses(cfg.loss, logps, mean_logps, refs, chosen, rejected, gap)
    nll = -mean_logps[chosen]
    # an empty micro-batch has no pairs; the zero keeps it part of the graph, and of the collectives
    preference = pairs.loss.sum() + 0.0 * logps.sum()
    loss = preference + cfg.loss.nll_weight * nll.sum() if cfg.loss.nll_weight else preference
    return MicroResult(loss, preference.detach(), pairs, gap, logps.detach()[chosen], logps.detach()[rejected])


def pair_losses(loss, logps, mean_logps, ref_logps, chosen, rejected, gap):
    """The loss of the config on the pairs of one micro-batch: a PairLoss. logps: float32 [S], summed, nats."""
    if loss.name == "cogpo":
        return cogpo_loss(logps, ref_logps, chosen, rejected, gap, betas=loss.betas)
    if loss.name == "simpo":
        return simpo_loss(mean_logps, chosen, rejected, beta=loss.simpo_beta, gamma=loss.simpo_gamma)
    if loss.name == "dpo":
        return dpo_loss(logps, ref_logps, chosen, rejected, beta=loss.beta)
    per_gap = loss.name == "beta_cogpo"
    return beta_dpo_loss(
        logps, ref_logps, chosen, rejected, beta=loss.betas if per_gap else loss.beta, alpha=loss.alpha, m0=loss.m0,
        gap=gap if per_gap else None, ceiling=loss.beta_ceiling,
    )  # fmt: skip


def train(cfg, ranks, saver, shape, examples, heldout, plan, model, optimizer, start, inputs):
    metrics = Metrics(cfg.out, cfg.watch, start, ranks, flat(cfg))
    speed = Speed(ranks, device_peak(ranks.device))
    with saver, Progress(len(plan), cfg.loss.name, initial=start, unit="step") as bar:
        for step in range(start, len(plan)):
            # the held-out values of a line belong to the same weights as its training loss: those before the update
            watched = step % cfg.heldout.every_steps == 0
            held = evaluate(cfg, ranks, shape, heldout, model) if heldout and watched else {}
            speed.start()
            units = [examples.units[u] for u in plan[step]]
            num_pairs = sum(unit.items for unit in units)
            everywhere = plan_step(plan[step], examples, cfg.batch, ranks.count, quadratic(shape))

            stats = GapStats(ranks.device)
            sums = torch.zeros(2, dtype=torch.float64, device=ranks.device)  # the loss, and its preference part
            for micro in everywhere[ranks.rank]:
                done = run_micro_batch(cfg, examples, micro, model, ranks.device)
                (done.loss / num_pairs).backward()
                sums += torch.stack([done.loss.detach(), done.preference]) / num_pairs
                stats.add(done.pairs, done.gap, done.chosen_logps, done.rejected_logps)
            total, preference = ranks.sum(sums).tolist()
            if step == 0 and cfg.loss.name != "simpo" and abs(preference - math.log(2)) > 1e-3:
                raise UserError(
                    f"the first loss is {preference:.4f}, not ln 2 = 0.6931: policy and reference log-probs differ "
                    f"before any training; delete {cfg.reference_cache} if another version, number of ranks or "
                    f"batch.max_tokens wrote it"
                )
            lr = lr_at(cfg.optim, step, len(plan))
            norm = apply_step(cfg.optim, model, optimizer, lr, total, step)
            lengths, supervised = count_tokens(examples, everywhere)
            fast = speed.read(sum(lengths), train_flops(shape, lengths, supervised, cfg.lora.rank))
            packing = plan_stats(everywhere, examples.units, examples.lengths, cfg.batch.max_tokens, quadratic(shape))
            metrics.log(
                step=step, loss=total, lr=lr, grad_norm=norm, tokens=sum(lengths),
                sequences_saved=2 * sum(unit.items for unit in units) - len(lengths), **fast, **packing,
                **stats.read(ranks), **held,
            )  # fmt: skip
            bar.update(loss=total, **shown(fast))
            saver.after_step(step + 1, len(plan), model, optimizer, {"inputs": inputs})
    return metrics


def evaluate(cfg, ranks, shape, heldout, model):
    """{"eval/loss": …, "eval/small/margin": …}: the same numbers on the held-out pairs, all of them one batch."""
    micro_batches = plan_step(heldout.everything, heldout, cfg.batch, ranks.count, quadratic(shape))[ranks.rank]
    stats = GapStats(ranks.device)
    total = torch.zeros((), device=ranks.device)
    with torch.no_grad():
        for micro in micro_batches:
            done = run_micro_batch(cfg, heldout, micro, model, ranks.device)
            total += done.loss
            stats.add(done.pairs, done.gap, done.chosen_logps, done.rejected_logps)
    reshard(model)
    num_pairs = sum(unit.items for unit in heldout.units)
    values = {"loss": ranks.sum(total).item() / num_pairs, **stats.read(ranks)}
    return {f"eval/{name}": value for name, value in values.items()}


if __name__ == "__main__":
    run_cli(main, Config, __doc__)
