"""What a run will need, predicted before anything is loaded: memory per GPU by part, hours, and what would make it fit.

It reads the model's config, the settings and the lengths of the data; no weight is touched. `--plan` prints show_plan.
"""

import itertools
from dataclasses import dataclass, replace

import numpy as np

from data.dataset import Examples, Pair
from data.packing import Unit, plan_epoch, plan_micro_batches, plan_stats
from errors import UserError
from model.flops import forward_flops, peak_flops, quadratic, shape_of, train_flops
from model.memory import GIB, Settings, predict_memory

HOST_LINK = 20e9  # bytes/s between a GPU and pinned CPU memory, each way
HOST_MEMORY = 100e9  # bytes/s at which AdamW walks through CPU memory
MOST_GPUS = 64


@dataclass
class PlanConfig:
    """The machine that --plan predicts for."""

    gpus: int = 8
    """how many GPUs"""
    memory_gb: float = 80.0
    """memory of one, in GiB"""
    gpu: str = "A800"
    """its name, for its peak FLOP/s (model/flops.py)"""
    utilization: float = 0.45
    """share of the peak that is assumed to be reached, recomputation included"""
    examples: int = 0
    """assume so many examples (CogPO: problems with a triad each) while there is no data.file yet; 0: read it"""
    tokens: int = 4000
    """median length of the assumed sequences; log-normal with σ 0.7, none longer than data.max_length"""


@dataclass(frozen=True)
class Work:
    """What is to be computed, over all epochs and GPUs."""

    lengths: np.ndarray  # int64, tokens of each sequence run in one epoch
    supervised: int  # tokens with a label, in one epoch
    epochs: int
    steps: int
    micro_batches: int  # of one rank
    longest_unit: int  # tokens that travel in one row whatever batch.max_tokens says
    longest_pair: int  # the same with batch.group_by_problem=false
    largest_step: int  # tokens
    fill: float
    idle: float
    reference: bool  # a forward pass over every sequence comes first


def longest_row(settings, work):
    """Tokens of the longest row that the settings allow; an upper bound that needs no new plan."""
    unit = work.longest_unit if settings.group_by_problem else work.longest_pair
    return max(unit, min(settings.max_tokens, work.largest_step))


def predict_hours(shape, settings, work, peak, utilization):
    """(hours of training, hours of the reference pass, MFU). peak: FLOP/s of one GPU.

    Counted is what is computed, recomputation included, at `utilization` of the peak, longer by what ranks wait for
    each other; with offload never faster than weights and gradients cross to the CPU and AdamW walks through them.
    """
    s, speed = settings, settings.gpus * peak * utilization * (1 - work.idle)
    useful = train_flops(shape, work.lengths, work.supervised, s.lora_rank)
    forward = forward_flops(shape, work.lengths, work.supervised)
    head = forward_flops(shape, [0], work.supervised)
    linear = 2.0 * shape.layers * shape.layer_linear * float(work.lengths.sum())
    again = {"none": 0.0, "selective": linear / 2, "full": forward - head}[s.checkpointing] + head
    seconds, reference = work.epochs * (useful + again) / speed, forward / speed if work.reference else 0.0
    if s.offload:
        crossing = 12 * shape.params / (s.gpus / s.replicate) / HOST_LINK  # two gathers, one gradient, float32
        seconds = max(seconds, work.micro_batches * crossing) + work.steps * 28 * shape.params / HOST_MEMORY
    mfu = work.epochs * useful / (seconds * s.gpus * peak)
    return seconds / 3600, reference / 3600, mfu


def ways_to_fit(shape, settings, work, capacity):
    """Changes of the configuration that make the prediction fit into `capacity` bytes, gentlest first.

    Returns [(text, Settings)]: single changes if one is enough, else pairs, triples and so on, of each kind the least.
    """
    options = _changes(settings, work)
    for number in range(1, len({key for key, _, _ in options}) + 1):
        fitting = {}
        for chosen in itertools.combinations(options, number):
            kind = tuple(dict.fromkeys(key for key, _, _ in chosen))
            if len(kind) < number or kind in fitting:
                continue
            changed = replace(settings, **{field: value for _, change, _ in chosen for field, value in change.items()})
            if predict_memory(shape, changed, longest_row(changed, work)).total <= capacity:
                fitting[kind] = (" ".join(text for _, _, text in chosen), changed)
        if fitting:
            return list(fitting.values())
    return []


def _changes(s, work):
    """[(kind, change of Settings, text)]: first what costs nothing but speed, then GPUs, then another result."""
    options = []

    def add(key, text, **change):
        options.append((key, change, text))

    for mode in ("selective", "full")[("none", "selective", "full").index(s.checkpointing) :]:
        add("checkpointing", f"parallel.activation_checkpointing={mode}", checkpointing=mode)
    if s.replicate > 1:
        add("replicate", "parallel.replicate=1", replicate=1)
    fewer = s.max_tokens // 2
    while 2 * fewer > max(work.longest_pair, 512):
        add("max_tokens", f"batch.max_tokens={fewer}", max_tokens=fewer)
        fewer //= 2
    if s.optim_state == "float32":
        add("state", "optim.state=8bit", optim_state="8bit")
    if not s.offload:
        add("offload", "parallel.offload=true", offload=True)
    if s.group_by_problem and work.longest_pair < work.longest_unit:
        add("group", "batch.group_by_problem=false", group_by_problem=False)
    gpus = s.gpus * 2
    while gpus <= MOST_GPUS:
        add("gpus", f"plan_for.gpus={gpus}", gpus=gpus)
        gpus *= 2
    if not s.lora_rank:
        add("lora", "lora.rank=16", lora_rank=16)
    return options


@dataclass(frozen=True)
class Assumed:
    """A sequence of which only the length is known; the prompt is a twentieth of it."""

    length: int

    def __len__(self):
        return self.length

    @property
    def prompt_len(self):
        return self.length // 20


def assume_examples(cfg, triads=False):
    """Examples with the lengths that cfg.plan_for assumes. triads: three responses and three pairs a problem, within
    ±20 % of one length. What would be longer than data.max_length is dropped, as in a run."""
    machine, rng = cfg.plan_for, np.random.default_rng(0)
    count = 3 if triads else 1
    lengths = rng.lognormal(np.log(machine.tokens), 0.7, (machine.examples, 1))
    lengths = (lengths * rng.uniform(0.8, 1.2, (machine.examples, count)) if triads else lengths).astype(int)
    kept = lengths[lengths.max(axis=1) <= cfg.data.max_length]
    pairs = (Pair(0, 1, 0), Pair(1, 2, 1), Pair(0, 2, 2)) if triads else ()
    units = []
    for first in range(0, kept.size, count):
        payload = tuple(replace(pair, chosen=first + pair.chosen, rejected=first + pair.rejected) for pair in pairs)
        units.append(Unit(tuple(range(first, first + count)), len(pairs) or 1, payload))
    return Examples([Assumed(int(n)) for n in kept.ravel()], units, dropped=machine.examples - len(kept))


def measure_work(cfg, examples, shape, settings, reference):
    """Work of a run: the plan of its first epoch, on settings.gpus ranks. cfg: a script's Config."""
    units, lengths, cap = examples.units, examples.lengths, settings.max_tokens
    attention, steps = quadratic(shape), plan_epoch(units, cfg.batch.size, cfg.seed, 0)
    micro_batches, figures, weights = 0, [], []
    for step in steps:
        plan = plan_micro_batches(step, units, lengths, cap, settings.gpus, attention)
        micro_batches += len(plan[0])
        figures.append(plan_stats(plan, units, lengths, cap, attention))
        weights.append(sum(lengths[s] for u in step for s in units[u].seqs))
    run = [s for unit in units for s in unit.seqs]
    pairs = [(p.chosen, p.rejected) for unit in units for p in unit.payload] or [unit.seqs for unit in units]
    return Work(
        lengths=np.array([lengths[s] for s in run]),
        supervised=sum(lengths[s] - examples.sequences[s].prompt_len for s in run),
        epochs=cfg.epochs,
        steps=len(steps) * cfg.epochs,
        micro_batches=micro_batches * cfg.epochs,
        longest_unit=max(sum(lengths[s] for s in unit.seqs) for unit in units),
        longest_pair=max(sum(lengths[s] for s in pair) for pair in pairs),
        largest_step=max(weights),
        fill=float(np.average([f["fill"] for f in figures], weights=weights)),
        idle=float(np.average([f["idle"] for f in figures], weights=weights)),
        reference=reference,
    )


def settings_of(cfg):
    """Settings from a script's Config on the machine of `cfg.plan_for`. Raises UserError if it cannot be divided so."""
    gpus, replicate = cfg.plan_for.gpus, cfg.parallel.replicate
    if gpus % replicate:
        raise UserError(f"parallel.replicate={replicate} does not divide plan_for.gpus={gpus}")
    return Settings(
        gpus=gpus,
        replicate=replicate,
        prefetch=cfg.parallel.prefetch,
        checkpointing=cfg.parallel.activation_checkpointing,
        offload=cfg.parallel.offload,
        optim_state=cfg.optim.state,
        lora_rank=cfg.lora.rank,
        max_tokens=cfg.batch.max_tokens,
        group_by_problem=cfg.batch.group_by_problem,
        compute_bytes=4 if cfg.model.compute_dtype == "float32" else 2,
    )


def show_plan(cfg, hf_config, examples, reference=False):
    """The text that --plan prints. Raises UserError for an unknown GPU.

    cfg: a script's Config, with `plan_for: PlanConfig`. hf_config: the model's transformers config. examples:
    data.dataset.Examples. reference: whether log π_ref of every sequence is computed first.
    """
    machine, shape, settings = cfg.plan_for, shape_of(hf_config), settings_of(cfg)
    peak = peak_flops(machine.gpu)
    if peak is None:
        raise UserError(f"plan_for.gpu={machine.gpu!r} is not among the GPUs whose peak is known: see model/flops.py")
    return format_plan(shape, settings, measure_work(cfg, examples, shape, settings, reference), machine, peak)


def format_plan(shape, settings, work, machine, peak):
    """machine: PlanConfig. peak: FLOP/s of one of its GPUs."""
    row, capacity = longest_row(settings, work), machine.memory_gb * GIB
    memory = predict_memory(shape, settings, row)
    fits = memory.total <= capacity
    lines = [
        f"memory of each of {settings.gpus} x {machine.gpu}: {shape.params / 1e9:.2f} B parameters over "
        f"{settings.gpus // settings.replicate} GPUs, rows of up to {row} tokens",
        *(f"  {name:<28}{size / GIB:8.1f} GiB" for name, size in memory.parts.items()),
        f"  {'together':<28}{memory.total / GIB:8.1f} GiB of {machine.memory_gb:g}: "
        + ("fits" if fits else "does not fit"),
    ]
    if memory.cpu:
        lines.append(f"  and {memory.cpu / GIB:.0f} GiB of CPU memory for each GPU")
    if not fits:
        ways = [
            f"{text} ({predict_memory(shape, s, longest_row(s, work)).total / GIB:.1f} GiB)"
            for text, s in ways_to_fit(shape, settings, work, capacity)
        ]
        lines.append(
            "first change that makes it fit: " + (ways[0] if ways else "none here, short of a lower data.max_length")
        )
        if ways[1:]:
            lines.append("others: " + "; ".join(ways[1:6]))
    train, reference, mfu = predict_hours(shape, settings, work, peak, machine.utilization)
    lines.append(
        f"time: {train + reference:.1f} h: {work.steps} steps, {work.epochs * work.lengths.sum() / 1e6:.1f} M tokens "
        f"at {machine.utilization:.0%} of {peak / 1e12:.0f} TFLOP/s (MFU {mfu:.0%}, recomputation not counted)"
        + (f"; {reference:.1f} h of it for the reference" if work.reference else "")
    )
    lines.append(f"rows {work.fill:.0%} full, GPUs wait {work.idle:.1%} of the time for each other")
    size = shape.params / 1e9
    lines.append(
        f"disk: {2 * size:.0f} GB for the model it writes, {12 * size:.0f} GB for each checkpoint"
        + (" (adapters alone: less)" if settings.lora_rank else "")
    )
    if machine.examples:
        lines.append(
            f"assumed: {machine.examples} examples, lengths with a median of {machine.tokens} tokens (plan_for.tokens)"
        )
    return "\n".join(lines)
