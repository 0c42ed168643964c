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
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import torch

from config import at_least_one, check_output, claim_output, run_cli
from data.errors import UserError
from data.examples import BatchConfig, DataConfig, load_pairs
from data.packing import pack, plan_epoch, plan_micro_batches
from data.records import GAPS
from data.render import Renderer
from losses import BatchBetaState, batch_beta, beta_dpo_loss, cogpo_loss, dpo_loss, simpo_loss
from losses.beta_dpo import differential
from model import checkpoint as ckpt
from model.load import ModelConfig, load_model, load_tokenizer, resolve_dtype, weights_id
from model.logprobs import LogProbModel, response_sums
from model.metrics import Metrics
from model.optim import OptimConfig, apply_step, lr_at, make_optimizer
from model.parallel import Ranks, reshard, shard
from model.reference import cache_key, reference_logps
from progress import Progress, say


@dataclass
class LossConfig:
    name: Literal["cogpo", "dpo", "beta_dpo", "beta_dpo_batch", "beta_cogpo", "simpo"] = "cogpo"
    """cogpo: Eq. 3. dpo: Eq. 2. beta_dpo: Eq. 4, per pair. beta_dpo_batch: the original, one β a batch with filter and
    moving threshold. beta_cogpo: Eq. 4 on CogPO's three betas. simpo: no reference, length-normalised"""
    betas: tuple[float, float, float] = (0.1, 0.2, 0.5)
    """cogpo, beta_cogpo: β of the small, medium and large gap (A.2)"""
    beta: float = 0.1
    """dpo, beta_dpo, beta_dpo_batch (Table 8)"""
    simpo_beta: float = 2.0
    """simpo (Table 8)"""
    simpo_gamma: float = 0.3
    """simpo: absolute margin inside the sigmoid (Table 8)"""
    alpha: float = 0.6
    """beta_dpo*, beta_cogpo: how strongly β follows the differential, per nat (the original's example; the paper is
    silent)"""
    m0: float = 0.0
    """beta_dpo, beta_cogpo: the predefined threshold M0, nats"""
    beta_floor: float = 1e-3
    """beta_dpo*, beta_cogpo: smallest β"""
    beta_ceiling: float = 1.0
    """beta_dpo*, beta_cogpo: largest β; summed over long chains, differentials reach tens of nats"""
    drop: float = 0.2
    """beta_dpo_batch: share of a batch's pairs that its filter drops"""


@dataclass
class Config:
    out: str
    """output folder: model/ (Hugging Face format), metrics.jsonl, config.yaml, checkpoints/ while running"""
    model: ModelConfig
    data: DataConfig
    loss: LossConfig = field(default_factory=LossConfig)
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(lr=5e-7))
    batch: BatchConfig = field(default_factory=BatchConfig)
    checkpoint: ckpt.CheckpointConfig = field(default_factory=ckpt.CheckpointConfig)
    reference_cache: str = "out/reference"
    """folder of reference log-probs, shared by all runs that start from the same weights"""
    epochs: int = 1
    """passes over the pairs (Table 8)"""
    seed: int = 0
    """order of the pairs"""


FREE = ("checkpoint", "reference_cache")  # keys that may change when a run is resumed


def main(cfg):
    at_least_one(cfg, "epochs", "batch.size", "batch.max_tokens", "checkpoint.every_steps", "checkpoint.keep")
    ranks = Ranks()
    check_output(cfg, cfg.out, FREE)
    if ckpt.is_done(cfg.out):
        say(f"already done: {cfg.out}/{ckpt.FINAL}")
        return

    tokenizer = load_tokenizer(cfg.model.path)
    examples = load_pairs(cfg.data, Renderer(tokenizer), cfg.batch.group_by_problem)
    num_pairs = sum(u.items for u in examples.units)
    plan = [step for epoch in range(cfg.epochs) for step in plan_epoch(examples.units, cfg.batch.size, cfg.seed, epoch)]
    say(
        f"{num_pairs} pairs over {len(examples.sequences)} unique responses, {sum(examples.lengths)} tokens, "
        f"{examples.dropped} pairs dropped as too long; {len(plan)} steps on {ranks.count} x {ranks.device.type}"
    )

    lm = load_model(cfg.model, ranks.device, tokenizer)
    if ranks.is_main:
        claim_output(cfg, cfg.out, FREE)
    compute_dtype = resolve_dtype(cfg.model.compute_dtype, ranks.device)
    model = shard(LogProbModel(lm), ranks, compute_dtype)
    weights = ranks.broadcast(weights_id(cfg.model.path) if ranks.is_main else None)
    ref_logps = None
    if cfg.loss.name != "simpo":
        ref_logps = reference(cfg, ranks, examples, model, cache_key(weights, compute_dtype, lm.config.packed_backend))

    optimizer = make_optimizer(cfg.optim, model)
    inputs = {"data.file": examples.digest(), "model.path": weights}  # the reference follows model.path
    resumed = ckpt.load_latest(Path(cfg.out) / "checkpoints", model, optimizer, inputs)
    resumed = resumed or {"step": 0, "beta_state": {}, "inputs": inputs}
    train(cfg, ranks, examples, plan, model, optimizer, ref_logps, resumed)
    ckpt.export(cfg, model, tokenizer, ranks)
    say(f"model in {cfg.out}/{ckpt.FINAL}, metrics in {cfg.out}/metrics.jsonl")


def reference(cfg, ranks, examples, model, key):
    """log π_ref of every unique response, float32 [R], in the micro-batches of the first epoch (model/reference.py)."""
    first_epoch = plan_epoch(examples.units, cfg.batch.size, cfg.seed, epoch=0)
    micro_batches = [
        unique_seqs(micro, examples.units) for step in first_epoch for micro in mine(cfg, ranks, examples, step)
    ]
    folder = Path(cfg.reference_cache) / key
    return reference_logps(model, examples.sequences, micro_batches, folder, ranks).to(ranks.device)


def mine(cfg, ranks, examples, step):
    """This rank's micro-batches of a step: lists of unit indices."""
    return plan_micro_batches(step, examples.units, examples.lengths, cfg.batch.max_tokens, ranks.count)[ranks.rank]


def unique_seqs(micro, units):
    """The sequences of a micro-batch, each once, in a fixed order."""
    return list(dict.fromkeys(s for u in micro for s in units[u].seqs))


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


def pair_losses(cfg, logps, ref_logps, lengths, chosen, rejected, gap, beta):
    """The loss of the config on the pairs of one micro-batch: a PairLoss. logps: float32 [S], summed, nats."""
    loss = cfg.loss
    if loss.name == "cogpo":
        return cogpo_loss(logps, ref_logps, chosen, rejected, gap, betas=loss.betas)
    if loss.name == "simpo":
        return simpo_loss(logps / lengths, chosen, rejected, beta=loss.simpo_beta, gamma=loss.simpo_gamma)
    if loss.name in ("dpo", "beta_dpo_batch"):
        return dpo_loss(logps, ref_logps, chosen, rejected, beta=beta)
    per_gap = loss.name == "beta_cogpo"
    return beta_dpo_loss(
        logps, ref_logps, chosen, rejected, beta=loss.betas if per_gap else loss.beta, alpha=loss.alpha, m0=loss.m0,
        gap=gap if per_gap else None, floor=loss.beta_floor, ceiling=loss.beta_ceiling,
    )  # fmt: skip


def train(cfg, ranks, examples, plan, model, optimizer, ref_logps, resumed):
    units, device = examples.units, ranks.device
    start, beta_state = resumed["step"], BatchBetaState(**resumed["beta_state"])
    metrics = Metrics(Path(cfg.out) / "metrics.jsonl", start, ranks)
    with Progress(len(plan), cfg.loss.name, initial=start, unit="step") as bar:
        for step in range(start, len(plan)):
            began = time.perf_counter()
            num_pairs = sum(units[u].items for u in plan[step])
            micro_batches = mine(cfg, ranks, examples, plan[step])
            beta, keep = cfg.loss.beta, None
            if cfg.loss.name == "beta_dpo_batch":
                beta, keep, beta_state = whole_batch_beta(
                    cfg, ranks, examples, plan[step], micro_batches, model, ref_logps, step, beta_state
                )
                num_pairs = sum(int(k.sum()) for k in keep.values())

            stats = GapStats(device)
            total = 0.0
            num_tokens = 0
            for micro in micro_batches:
                batch, seqs, chosen, rejected, gap = local_batch(micro, examples, device)
                logps = response_sums(model(batch), batch)
                refs = None if ref_logps is None else ref_logps[seqs]
                lengths = torch.tensor(batch.response_lens, device=device)
                pairs = pair_losses(cfg, logps, refs, lengths, chosen, rejected, gap, beta)
                losses = pairs.loss
                if keep is not None and micro:
                    losses = losses * torch.cat([keep[u] for u in micro]).to(device)
                # an empty micro-batch has no pairs; the zero keeps it part of the graph, and of the collectives
                loss = losses.sum() / num_pairs + 0.0 * logps.sum()
                loss.backward()
                total = total + loss.detach()
                num_tokens += batch.input_ids.numel() if micro else 0
                stats.add(pairs, gap, logps.detach(), chosen, rejected)
            total = ranks.sum(total).item()
            if step == 0 and cfg.loss.name != "simpo" and abs(total - math.log(2)) > 1e-3:
                raise UserError(
                    f"the first loss is {total:.4f}, not ln 2 = 0.6931: policy and reference log-probs differ before "
                    f"any training; delete {cfg.reference_cache} if it was written by another version"
                )
            lr = lr_at(cfg.optim, step, len(plan))
            norm = apply_step(cfg.optim, model, optimizer, lr, total, step)
            tokens = int(ranks.sum(torch.tensor(num_tokens, device=device)).item())
            rate = tokens / (time.perf_counter() - began)
            metrics.log(
                step=step, loss=total, lr=lr, grad_norm=norm, tokens=tokens, tokens_per_second=rate, **stats.read(ranks)
            )
            bar.update(loss=total, tok_s=round(rate))
            if (step + 1) % cfg.checkpoint.every_steps == 0 and step + 1 < len(plan):
                ckpt.save(cfg, step + 1, model, optimizer, resumed | {"beta_state": asdict(beta_state)}, ranks)
    metrics.close()


def whole_batch_beta(cfg, ranks, examples, step_units, micro_batches, model, ref_logps, step, state):
    """β-DPO's batch-level β: a forward pass over the whole step first, so that β does not depend on the packing.

    Returns (β, keep, new state); keep: {unit index: bool tensor, one entry a pair of the unit}.
    """
    found = {}
    for micro in micro_batches:
        batch, seqs, chosen, rejected, _ = local_batch(micro, examples, ranks.device)
        with torch.no_grad():
            logps = response_sums(model(batch), batch)
        gaps = differential(logps, ref_logps[seqs], chosen, rejected).cpu()
        found |= dict(zip(micro, gaps.split([examples.units[u].items for u in micro]), strict=True))
    reshard(model)
    everywhere = {u: gaps for on_rank in ranks.gather(found) for u, gaps in on_rank.items()}
    generator = torch.Generator().manual_seed(cfg.seed * 1_000_003 + step)
    loss = cfg.loss
    beta, keep, state = batch_beta(
        torch.cat([everywhere[u] for u in step_units]), state, generator, beta=loss.beta, alpha=loss.alpha,
        drop=loss.drop, floor=loss.beta_floor, ceiling=loss.beta_ceiling,
    )  # fmt: skip
    kept = keep.split([examples.units[u].items for u in step_units])
    return beta, dict(zip(step_units, kept, strict=True)), state


class GapStats:
    """Per gap: pairs, loss, margin, accuracy, chosen and rejected log-prob and reward, β. Stays on the device."""

    NAMES = (
        "pairs",
        "loss",
        "margin",
        "accuracy",
        "chosen_logp",
        "rejected_logp",
        "chosen_reward",
        "rejected_reward",
        "beta",
    )

    def __init__(self, device):
        self.sums = torch.zeros(len(GAPS), len(self.NAMES), dtype=torch.float64, device=device)

    def add(self, pairs, gap, logps, chosen, rejected):
        columns = (
            torch.ones_like(pairs.margin), pairs.loss.detach(), pairs.margin, (pairs.margin > 0).float(), logps[chosen],
            logps[rejected], pairs.chosen_reward, pairs.rejected_reward, pairs.beta,
        )  # fmt: skip
        self.sums.index_add_(0, gap, torch.stack(columns, dim=1).double())

    def read(self, ranks):
        """{"small/loss": mean, …} over all ranks; a gap without pairs is left out."""
        out = {}
        for name, row in zip(GAPS, ranks.sum(self.sums).tolist(), strict=True):
            if row[0]:
                out[f"{name}/pairs"] = int(row[0])
                out |= {f"{name}/{k}": v / row[0] for k, v in zip(self.NAMES[1:], row[1:], strict=True)}
        return out


if __name__ == "__main__":
    run_cli(main, Config, __doc__)
