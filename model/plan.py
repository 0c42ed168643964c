"""What --plan prints: memory, hours and disk of a whole run on a machine that need not be there, from lengths alone."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from transformers import PretrainedConfig

from data.dataset import Examples, Pair
from data.packing import Unit, plan_epoch, plan_micro_batches, plan_stats
from data.render import Sequence
from errors import UserError
from model.cost import (
    GIB,
    Settings,
    Shape,
    forward_parts,
    longest_rows,
    predict_memory,
    quadratic,
    recomputed_flops,
    settings_of,
    shape_of,
    train_flops,
)
from model.metrics import peak_flops
from model.parallel import ANY_LENGTH, recomputed_by
from settings import PlanConfig, TrainConfig

HOST_LINK = 20e9  # bytes/s between a GPU and pinned CPU memory, each way
HOST_MEMORY = 100e9  # bytes/s at which AdamW walks through CPU memory


@dataclass(frozen=True)
class Work:
    """What is to be computed, over all epochs and GPUs."""

    lengths: np.ndarray  # int64, tokens of each sequence run in one epoch
    rows: np.ndarray  # int64, of the row that each of them is in
    supervised: int  # tokens with a label, in one epoch
    epochs: int
    steps: int
    micro_batches: int  # of one rank
    longest_unit: int  # tokens that travel in one row whatever batch.max_tokens says
    largest_step: int  # tokens
    fill: float
    idle: float
    reference: bool  # a forward pass over every sequence comes first


def longest_row(settings: Settings, work: Work) -> int:
    """Count the tokens of the longest row that the settings allow; an upper bound that needs no new plan."""
    return max(work.longest_unit, min(settings.max_tokens, work.largest_step))


def predict_hours(
    shape: Shape, settings: Settings, work: Work, peak: float, utilization: float, longest: dict[str, int]
) -> tuple[float, float, float]:
    """Predict (hours of training, hours of the reference pass, MFU). peak: FLOP/s of one GPU. longest: longest_rows.

    Counted is what is computed, recomputation included, at `utilization` of the peak, longer by what ranks wait for
    each other; with offload never faster than weights and gradients cross to the CPU and AdamW walks through them.
    """
    s, speed = settings, settings.gpus * peak * utilization * (1 - work.idle)
    useful = train_flops(shape, work.lengths, work.supervised, s.lora_rank)
    # what the backward pass computes again: the head always, a layer as its row asks, up to what a gradient needs last
    linear, head, attention = forward_parts(shape, work.lengths, work.supervised)
    modes = np.array([recomputed_by(tokens, longest) for tokens in work.rows])
    again = head + sum(sum(recomputed_flops(shape, work.lengths[modes == mode], mode, s.lora_rank)) for mode in longest)
    seconds = work.epochs * (useful + again) / speed
    reference = (linear + head + attention) / speed if work.reference else 0.0
    if s.offload:
        crossing = 12 * shape.params / (s.gpus / s.replicate) / HOST_LINK  # two gathers, one gradient, float32
        seconds = max(seconds, work.micro_batches * crossing) + work.steps * 28 * shape.params / HOST_MEMORY
    mfu = work.epochs * useful / (seconds * s.gpus * peak)
    return seconds / 3600, reference / 3600, mfu


def assume_examples(plan: PlanConfig, max_length: int, triads: bool = False) -> Examples:
    """Make up examples with the lengths that `plan` assumes; longer ones than max_length are dropped, as in a run.

    triads: three responses and three pairs a problem, within ±20 % of one length. Raises UserError if none is left.
    """
    rng, count = np.random.default_rng(0), 3 if triads else 1
    lengths = rng.lognormal(np.log(plan.tokens), 0.7, (plan.examples, 1))
    lengths = (lengths * rng.uniform(0.8, 1.2, (plan.examples, count)) if triads else lengths).astype(int)
    kept = lengths[lengths.max(axis=1) <= max_length]
    if not kept.size:
        raise UserError(
            f"of examples={plan.examples} with tokens={plan.tokens} none fits in data.max_length={max_length}"
        )
    units = []
    for a in range(0, kept.size, count):
        pairs = (Pair(a, a + 1, 0), Pair(a + 1, a + 2, 1), Pair(a, a + 2, 2)) if triads else ()
        units.append(Unit(tuple(range(a, a + count)), len(pairs) or 1, pairs))
    # sequences of which only the lengths are read: no memory behind their tokens; the prompt is a twentieth
    sequences = [Sequence(np.broadcast_to(np.int32(0), n), n // 20) for n in kept.ravel().tolist()]
    return Examples(sequences, units, dropped=plan.examples - len(kept))


def measure_work(cfg: TrainConfig, examples: Examples, shape: Shape, gpus: int, reference: bool) -> Work:
    """Plan the first epoch on `gpus` ranks, and count what the whole run computes."""
    units, lengths, cap = examples.units, examples.lengths, cfg.batch.max_tokens
    attention, steps = quadratic(shape), plan_epoch(units, cfg.batch.size, cfg.seed, 0)
    # each step's rows on every rank, and how long the row is that a unit travels in
    micro_batches, figures, rows = 0, [], {}
    unit_tokens = [sum(lengths[s] for s in unit.seqs) for unit in units]
    for step in steps:
        plan = plan_micro_batches(step, units, lengths, cap, gpus, attention)
        micro_batches += len(plan[0])
        figures.append(plan_stats(plan, units, lengths, cap, attention))
        rows |= {u: sum(unit_tokens[v] for v in row) for on_rank in plan for row in on_rank for u in row}
    # what the steps hold, and the sequences that are run, each with its row
    step_tokens = [sum(unit_tokens[u] for u in step) for step in steps]
    run = [(s, rows[u]) for u, unit in enumerate(units) for s in unit.seqs]
    return Work(
        lengths=np.array([lengths[s] for s, _ in run]),
        rows=np.array([row for _, row in run]),
        supervised=sum(examples.sequences[s].supervised for s, _ in run),
        epochs=cfg.epochs,
        steps=len(steps) * cfg.epochs,
        micro_batches=micro_batches * cfg.epochs,
        longest_unit=max(unit_tokens),
        largest_step=max(step_tokens),
        fill=float(np.average([f["fill"] for f in figures], weights=step_tokens)),
        idle=float(np.average([f["idle"] for f in figures], weights=step_tokens)),
        reference=reference,
    )


def ways_to_less(shape: Shape, settings: Settings, work: Work) -> dict[str, float]:
    """Predict {change of the configuration: GiB of a GPU with it} for the single changes that need less memory."""
    changes = {
        "parallel.activation_checkpointing=full": {"checkpointing": "full"},
        "parallel.replicate=1": {"replicate": 1},
        f"batch.max_tokens={settings.max_tokens // 2}": {"max_tokens": settings.max_tokens // 2},
        "parallel.offload=true": {"offload": True},
        "lora.rank=16": {"lora_rank": settings.lora_rank or 16},
        f"{2 * settings.gpus} GPUs": {"gpus": 2 * settings.gpus},
    }
    found, now = {}, predict_memory(shape, settings, longest_row(settings, work)).total
    for text, change in changes.items():
        changed = replace(settings, **change)
        total = predict_memory(shape, changed, longest_row(changed, work)).total
        if total < now:
            found[text] = total / GIB
    return found


def show_plan(
    cfg: TrainConfig,
    hf_config: PretrainedConfig,
    examples: Examples | None,
    triads: bool = False,
    reference: bool = False,
) -> str:
    """Return the text that --plan prints. Raises UserError for an unknown GPU.

    examples: of data.file; None: assume those of cfg.plan, with triads as CogPO has them. reference: whether log π_ref
    of every sequence is computed first.
    """
    plan, shape, settings = cfg.plan, shape_of(hf_config), settings_of(cfg, cfg.plan.gpus)
    peak = peak_flops(plan.gpu)
    if peak is None:
        raise UserError(f"--plan gpu={plan.gpu!r} is not among the GPUs whose peak is known: see model/metrics.py")
    examples = examples or assume_examples(plan, cfg.data.max_length, triads)
    work = measure_work(cfg, examples, shape, plan.gpus, reference)

    # memory, part by part; where it does not fit, what each single change would make of it
    row, size = longest_row(settings, work), shape.params / 1e9
    longest = longest_rows(shape, settings, plan.memory_gb * GIB)
    settings = replace(settings, checkpointing=recomputed_by(row, longest))
    memory = predict_memory(shape, settings, row)
    fits = memory.total <= plan.memory_gb * GIB
    lines = [
        f"memory of each of {settings.gpus} x {plan.gpu}: {size:.2f} B parameters over "
        f"{settings.gpus // settings.replicate} GPUs, rows of up to {row} tokens",
        *(f"  {name:<28}{part / GIB:8.1f} GiB" for name, part in memory.parts.items()),
        f"  {'together':<28}{memory.total / GIB:8.1f} GiB of {plan.memory_gb:g}: "
        + ("fits" if fits else "does not fit"),
    ]
    if len(longest) > 1:
        rows = (f"{mode} up to {tokens} tokens" for mode, tokens in longest.items() if 0 < tokens < ANY_LENGTH)
        lines.append(f"recomputed by row: {', '.join((*rows, 'full beyond'))}; shorter rows fill what is free")
    if not fits:
        ways = ways_to_less(shape, settings, work).items()
        lines.append("together with one change: " + "; ".join(f"{text} {gib:.1f} GiB" for text, gib in ways))
    lines.append(f"and {memory.cpu / GIB:.0f} GiB of CPU memory for each GPU while a checkpoint is written")

    # hours, disk, and what was assumed
    train, reference, mfu = predict_hours(shape, settings, work, peak, plan.utilization, longest)
    lines.append(
        f"time: {train + reference:.1f} h: {work.steps} steps, {work.epochs * int(work.lengths.sum()) / 1e6:.1f} M "
        f"tokens at {plan.utilization:.0%} of {peak / 1e12:.0f} TFLOP/s (MFU {mfu:.0%}, recomputation not counted)"
        + (f"; {reference:.1f} h of it for the reference" if work.reference else "")
    )
    lines.append(f"rows {work.fill:.0%} full, GPUs wait {work.idle:.1%} of the time for each other")
    written = size * getattr(torch, cfg.model.export_dtype).itemsize
    lines.append(
        f"disk: {written:.0f} GB for the model it writes, {12 * size:.0f} GB for each checkpoint"
        + (" (adapters alone: less)" if settings.lora_rank else "")
    )
    if plan.examples:
        lines.append(f"assumed: {plan.examples} examples, lengths with a median of {plan.tokens} tokens")
    return "\n".join(lines)
