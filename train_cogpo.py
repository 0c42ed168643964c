"""Phase 2 (§3.3): CogPO, and its baselines DPO, β-DPO and SimPO, by `loss.name`.

    python train_cogpo.py --config configs/pocket/cogpo.yaml                             one process, CPU or one GPU
    torchrun --nproc_per_node 8 train_cogpo.py --config configs/paper/cogpo_7b.yaml      eight GPUs, sharded
    … loss.name=dpo out=out/dpo                                                          a baseline on the same pairs
    … --plan gpus=8 gpu=A800 memory_gb=80                                                what it would need; no run

Before anything is trained or resumed, the reference log-prob of every unique response is computed once and kept on
disk. The loss of a step is the sum over its pairs divided by their global count, whatever the packing, the number of
micro-batches or of ranks; each unique response of a problem is run forward and backward once, however many pairs it is
in. Stopped or killed at any point, run the same command to resume.
"""

from dataclasses import dataclass, field
from typing import Literal

from config import check_folder, parse, run_cli
from errors import UserError
from settings import BatchConfig, OptimConfig, TrainConfig
from values import Count, FilePath, Finite, NotNegative, Positive, Whole


@dataclass
class LossConfig:
    """A key that is left out (null) takes the default of its function in losses/."""

    name: Literal["cogpo", "dpo", "beta_dpo", "beta_cogpo", "simpo"] = "cogpo"
    """cogpo: Eq. 3. dpo: Eq. 2. beta_dpo: Eq. 4. beta_cogpo: Eq. 4 on CogPO's three betas. simpo: no reference,
    length-normalised"""
    betas: tuple[NotNegative, NotNegative, NotNegative] | None = None
    """cogpo, beta_cogpo: β of the small, medium and large gap"""
    beta: Positive | None = None
    """dpo, beta_dpo"""
    simpo_beta: Positive | None = None
    """simpo"""
    simpo_gamma: NotNegative | None = None
    """simpo: absolute margin inside the sigmoid"""
    alpha: NotNegative | None = None
    """beta_dpo, beta_cogpo: how strongly β follows the differential, per nat (the paper is silent)"""
    m0: Finite | None = None
    """beta_dpo, beta_cogpo: the predefined threshold M0, nats"""
    beta_ceiling: Positive | None = None
    """beta_dpo, beta_cogpo: largest β; summed over long chains, differentials reach tens of nats"""
    penalty: NotNegative | None = None
    """cogpo, dpo: λ of DPOP's penalty on a chosen response that became less likely (arXiv 2402.13228: 50)"""
    per_token: bool = False
    """all but simpo, which always does: log-probs, the reference's too, are divided by the response's length. β is then
    larger by about that length (OLMo 3's length-normalised DPO: 5)"""
    nll_weight: NotNegative = 0.0
    """any loss: weight of an added −log π(y_w)/|y_w|, the chosen response's mean NLL, averaged over pairs"""


# the keys that each loss reads; one that is set beside another loss is named, as it does nothing
READS = {
    "cogpo": {"betas", "penalty"},
    "dpo": {"beta", "penalty"},
    "beta_dpo": {"beta", "alpha", "m0", "beta_ceiling"},
    "beta_cogpo": {"betas", "alpha", "m0", "beta_ceiling"},
    "simpo": {"simpo_beta", "simpo_gamma"},
}


@dataclass
class PairBatchConfig(BatchConfig):
    """How much goes into a step and into a row."""

    group_by_problem: bool = True
    """keep a problem's pairs together, so that each of its responses is run once (3 instead of 6)"""


@dataclass
class Config(TrainConfig):
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(lr=5e-7))
    batch: PairBatchConfig = field(default_factory=PairBatchConfig)
    epochs: Count = 1
    """passes over the pairs (Table 8)"""
    loss: LossConfig = field(default_factory=LossConfig)
    gradients_every: Whole = 0
    """every N steps, measure how each gap's chosen and rejected responses pull: the gradient norm of its mean loss
    through either side alone (six more forward and backward passes of the step); 0: never"""
    reference_cache: FilePath = "out/reference"
    """folder of reference log-probs, shared by all runs that start from the same weights"""


if __name__ == "__main__":
    parse(Config, __doc__)  # --help and mistyped keys are answered before torch and transformers load

import itertools
import math
from pathlib import Path

import torch

from data.dataset import Examples, load_pairs, plan_step, sequences_saved, unique_seqs
from data.packing import PackedBatch, pack, plan_epoch, send
from data.records import GAPS
from lock import locked
from losses import PairLoss, beta_dpo_loss, cogpo_loss, dpo_loss, simpo_loss
from model.logprobs import response_sums
from model.metrics import GapStats
from model.optim import apply_step, gradient_norm, lr_at
from model.parallel import reshard
from model.reference import cache_key, reference_logps
from model.session import Run, begin, finish, predict, resume
from progress import Progress, say


def main(cfg: Config) -> None:
    def load(data, renderer):
        return load_pairs(data, renderer, cfg.batch.group_by_problem, cfg.batch)

    # what is asked, and what can be refused, before anything is loaded
    has_reference = cfg.loss.name != "simpo"
    if cfg.plan:
        return print(predict(cfg, load, triads=True, reference=has_reference))
    warn_of_unread(cfg.loss)
    if has_reference:
        check_folder(cfg.reference_cache)

    def one_pair():
        zeros, indices = torch.zeros(2), torch.tensor([[0], [1], [0]])
        return pair_losses(cfg.loss, zeros, zeros + 1, zeros, *indices)

    with locked(cfg.out):
        run = begin(cfg, __file__, load, describe, one_pair)
        if run is not None:
            if has_reference:  # before anything is trained or resumed: the model still is the reference
                add_reference(run)
            resume(run)
            if has_reference and run.start == 0:
                check_start(run)
            train(run)
            finish(run, evaluate)


def warn_of_unread(loss: LossConfig) -> None:
    """Name each key that is set and does nothing, as another loss reads it."""
    unread = set().union(*READS.values()) - READS.get(loss.name, vars(loss).keys())
    for key in sorted(key for key in unread if getattr(loss, key) is not None):
        say(f"warning: loss.name={loss.name} does not read loss.{key}")


def describe(examples: Examples) -> str:
    """Say what was read: pairs, and how many passes their shared responses spare."""
    num_pairs = sum(unit.items for unit in examples.units)
    saved = sequences_saved(examples.units)
    return (
        f"{num_pairs} pairs over {len(examples.sequences)} unique responses ({saved} of {2 * num_pairs} passes saved)"
    )


def train(run: Run) -> None:
    """Do the optimizer steps from run.start to the end of the plan, with checkpoints and one line of metrics each."""
    cfg, ranks, num_steps = run.cfg, run.ranks, len(run.steps)
    with run.saver, Progress(num_steps, cfg.loss.name, initial=run.start, unit="step") as bar:
        for step in range(run.start, num_steps):
            # held-out values first: all values of a line belong to the same weights, those before the update
            eval_metrics = evaluate(run) if run.is_eval_step(step) else {}

            # the micro-batches of every rank, as many for each (sharding makes every pass a collective), and the
            # global count of pairs, so that all losses are parts of one mean
            plan_by_rank = plan_step(run.steps[step], run.examples, cfg.batch, ranks.count, run.quadratic)
            num_pairs = sum(run.examples.units[u].items for u in run.steps[step])
            every = cfg.gradients_every
            pulls = gradient_norms(run, plan_by_rank[ranks.rank]) if every and step % every == 0 else {}

            # forward and backward: the gradients of the micro-batches add up
            run.speed.start()
            total = torch.zeros(1, dtype=torch.float64, device=ranks.device)
            stats = GapStats(ranks.device)
            for micro in plan_by_rank[ranks.rank]:
                loss = micro_batch_loss(run, run.examples, micro, stats) / num_pairs
                loss.backward()
                total += loss.detach()

            # update, unless the loss or the gradient is not finite; the numbers of all ranks come in one read
            lr, sums = lr_at(cfg.optim, step, num_steps), torch.cat([total, stats.sums.flatten()])
            (loss, *gaps), norm = apply_step(cfg.optim, run.model, run.optimizer, lr, step, ranks.sum(sums))

            values = {"loss": loss, "lr": lr, "grad_norm": norm, **GapStats.means(gaps), **pulls, **eval_metrics}
            bar.update(**run.log(step, plan_by_rank, **values))
            run.save(step + 1)


def micro_batch_loss(run: Run, examples: Examples, micro: list[int], stats: GapStats) -> torch.Tensor:
    """Run one micro-batch (unit indices) and sum its loss over pairs: float32 [], nats, not divided.

    stats: takes up the pairs' values. An empty micro-batch runs one sequence that weighs nothing, so that every rank
    takes part in the collectives.
    """
    # each unique response once: R sequences, P pairs as indices into them
    batch, seqs, chosen, rejected, gap = local_batch(micro, examples, run.ranks.device)
    logps = response_sums(run.model(batch), batch)  # [R]
    lengths = send(torch.tensor(batch.response_lens), logps.device)
    ref_logps = None if examples.ref_logps is None else send(examples.ref_logps[seqs], logps.device)

    pairs = pair_losses(run.cfg.loss, logps, lengths, ref_logps, chosen, rejected, gap)
    stats.add(pairs, gap, logps, chosen, rejected)
    loss = pairs.loss.sum() + 0.0 * logps.sum()  # without pairs the zero keeps the sequence part of the graph
    if run.cfg.loss.nll_weight:
        loss = loss + run.cfg.loss.nll_weight * (-(logps / lengths)[chosen]).sum()
    return loss


def pair_losses(
    loss: LossConfig,
    logps: torch.Tensor,
    lengths: torch.Tensor,
    ref_logps: torch.Tensor | None,
    chosen: torch.Tensor,
    rejected: torch.Tensor,
    gap: torch.Tensor,
) -> PairLoss:
    """Compute the loss of the config on P pairs over R responses.

    logps, ref_logps: float32 [R], summed, nats. lengths: [R], tokens of the responses. chosen, rejected: int64 [P],
    indices into R. gap: int64 [P]. What the config leaves out is not passed: the defaults are those of the functions in
    losses/.
    """
    if loss.per_token or loss.name == "simpo":
        logps, ref_logps = logps / lengths, None if ref_logps is None else ref_logps / lengths
    if loss.name == "cogpo":
        keys = given(betas=loss.betas, penalty=loss.penalty)
        return cogpo_loss(logps, ref_logps, chosen, rejected, gap, **keys)
    if loss.name == "dpo":
        return dpo_loss(logps, ref_logps, chosen, rejected, **given(beta=loss.beta, penalty=loss.penalty))
    if loss.name == "simpo":
        return simpo_loss(logps, chosen, rejected, **given(beta=loss.simpo_beta, gamma=loss.simpo_gamma))
    keys = given(alpha=loss.alpha, m0=loss.m0, ceiling=loss.beta_ceiling)
    keys |= given(beta=loss.beta) if loss.name == "beta_dpo" else given(beta=loss.betas, gap=gap)
    return beta_dpo_loss(logps, ref_logps, chosen, rejected, **keys)


def gradient_norms(run: Run, micro_batches: list[list[int]]) -> dict[str, float]:
    """Measure what pulls at the weights: {"small/chosen_grad": …, "small/rejected_grad": …, …}, nothing is updated.

    The norm of the gradient of a gap's mean loss over the step's pairs, through its chosen responses while the rejected
    ones are held, and the other way round. micro_batches: this rank's. Every rank calls it.
    """
    found, tags = {}, [p.gap for micro in micro_batches for u in micro for p in run.examples.units[u].pairs]
    counts = run.ranks.sum(torch.tensor([tags.count(g) for g in range(len(GAPS))], device=run.ranks.device)).tolist()
    for (tag, name), side in itertools.product(enumerate(GAPS), ("chosen", "rejected")):
        if not counts[tag]:
            continue
        for micro in micro_batches:
            batch, seqs, chosen, rejected, gap = local_batch(micro, run.examples, run.ranks.device)
            logps = response_sums(run.model(batch), batch)

            # each response twice, the second time without a gradient: which of them a side's indices point to
            both, lengths = torch.cat([logps, logps.detach()]), torch.tensor(2 * batch.response_lens).to(logps.device)
            ref_logps = None if run.examples.ref_logps is None else run.examples.ref_logps[2 * seqs].to(logps.device)
            held = {"chosen": (chosen, rejected + len(seqs)), "rejected": (chosen + len(seqs), rejected)}[side]
            pairs = pair_losses(run.cfg.loss, both, lengths, ref_logps, *held, gap)
            (pairs.loss[gap == tag].sum() / counts[tag] + 0.0 * logps.sum()).backward()
        found[f"{name}/{side}_grad"] = gradient_norm(run.model)
    return found


def given(**keys) -> dict:
    """Keep the keys that are set."""
    return {key: value for key, value in keys.items() if value is not None}


def local_batch(
    micro: list[int], examples: Examples, device: torch.device
) -> tuple[PackedBatch, list[int], torch.Tensor, torch.Tensor, torch.Tensor]:
    """Pack the R unique responses of a micro-batch, and express its P pairs as indices into them.

    Returns (batch, sequence indices [R], chosen [P], rejected [P], gap [P]), the last three int64. An empty micro-batch
    becomes one sequence and no pairs.
    """
    seqs = unique_seqs(micro, examples.units) or [0]
    place = {s: i for i, s in enumerate(seqs)}
    pairs = [(place[p.chosen], place[p.rejected], p.gap) for u in micro for p in examples.units[u].pairs]
    chosen, rejected, gap = send(torch.tensor(pairs, dtype=torch.int64).reshape(-1, 3), device).unbind(1)
    return pack([examples.sequences[s] for s in seqs]).to(device), seqs, chosen, rejected, gap


def evaluate(run: Run) -> dict[str, float]:
    """Compute {"eval/loss": …, "eval/small/margin": …}: a step's numbers, on all held-out pairs as one batch."""
    plan_by_rank = plan_step(run.heldout.everything, run.heldout, run.cfg.batch, run.ranks.count, run.quadratic)
    total, stats = torch.zeros((), device=run.ranks.device), GapStats(run.ranks.device)
    with run.model.without_backward():
        for micro in plan_by_rank[run.ranks.rank]:
            total += micro_batch_loss(run, run.heldout, micro, stats).detach()
    reshard(run.model)
    values = {"loss": run.ranks.sum(total).item() / sum(unit.items for unit in run.heldout.units)}
    values |= GapStats.means(run.ranks.sum(stats.sums).flatten().tolist())
    return {f"eval/{name}": value for name, value in values.items()}


def add_reference(run: Run) -> None:
    """Give the examples, and the held-out ones, log π_ref of every unique response: computed now, or read from disk.

    It runs in the micro-batches of the first epoch, which the first step runs again (model/reference.py).
    """
    cfg = run.cfg
    model = run.inputs["model.path"] + run.inputs["model.path/config.json"]
    key = cache_key(model, run.model, run.ranks.device)
    first_epoch = plan_epoch(run.examples.units, cfg.batch.size, cfg.seed, epoch=0)
    held_out = [(run.heldout, [run.heldout.everything])] if run.heldout else []
    for examples, steps in [(run.examples, first_epoch), *held_out]:
        micro_batches = [
            unique_seqs(micro, examples.units)
            for step in steps
            for micro in plan_step(step, examples, cfg.batch, run.ranks.count, run.quadratic)[run.ranks.rank]
        ]
        path = Path(cfg.reference_cache) / f"{key}.jsonl"
        examples.ref_logps = reference_logps(run.model, examples.sequences, micro_batches, path, run.ranks)


def check_start(run: Run) -> None:
    """Refuse to train if policy and reference differ on the first step's responses, on any rank: they are one model.

    The log-probs themselves are compared, so this holds for every loss. Raises UserError on all ranks.
    """
    # the forward pass of training itself; its graph is dropped
    eps = torch.finfo(run.model.dtype).eps
    worst = (0.0, 0.0)  # of this rank: |Δ| as a multiple of what rounding explains, and in nats
    for micro in plan_step(run.steps[0], run.examples, run.cfg.batch, run.ranks.count, run.quadratic)[run.ranks.rank]:
        batch, seqs, *_ = local_batch(micro, run.examples, run.ranks.device)
        logps = response_sums(run.model(batch), batch).detach().cpu()
        drift = (logps - run.examples.ref_logps[seqs]).abs().nan_to_num(math.inf)
        # the errors of n tokens add up like a random walk: √n times a few roundings of the compute dtype
        allowed = 1e-3 + 8 * eps * torch.tensor(batch.response_lens).sqrt()
        at = (drift / allowed).argmax()
        worst = max(worst, ((drift / allowed)[at].item(), drift[at].item()))
    reshard(run.model)

    # every rank learns the worst of all, so that all stop or none does
    ratio, nats = max(run.ranks.gather(worst))
    if not ratio <= 1:
        raise UserError(
            f"policy and reference log-probs differ by {nats:.4g} nats before any training, where they are the same "
            f"model; delete {run.cfg.reference_cache}: its values are not those of {run.cfg.model.path} here"
        )


if __name__ == "__main__":
    run_cli(main, Config, __doc__)
