"""Batch plans, and the packing of sequences into rows without padding.

Everything here is a pure function of (lengths, seed, epoch): a resumed run walks the very same plan, and no loader
state needs saving. The words:

    unit         sequences that travel together: one example (SFT), or all responses of a problem's pairs (CogPO), so
                 that a response shared by several pairs is run once
    step         the units of one optimizer step, `batch_size` items in all (examples, or pairs)
    micro-batch  units that are packed into one row of at most `max_tokens` tokens
"""

import bisect
import heapq
from dataclasses import dataclass

import numpy as np
import torch

from data.render import Sequence


@dataclass(frozen=True)
class Unit:
    """Sequences that travel together."""

    seqs: tuple[int, ...]  # indices of sequences
    items: int = 1  # how many examples or pairs it counts for
    pairs: tuple = ()  # data.dataset.Pair, over sequences; SFT has none
    continues: bool = False  # it belongs to the step of the unit before it: a part of something that a row cannot hold


@dataclass
class PackedBatch:
    """S sequences in one row of T tokens, N of them supervised. Log-prob n belongs to labels[n]."""

    input_ids: torch.Tensor  # int64 [1, T]
    position_ids: torch.Tensor  # int64 [1, T], from 0 in every sequence
    cu_seqlens: torch.Tensor  # int32 [S+1]
    max_seqlen: int
    predict_from: torch.Tensor  # int64 [N], the position whose hidden state predicts the token
    labels: torch.Tensor  # int64 [N]
    response_lens: list[int]  # S lengths, summing to N

    def to(self, device: torch.device) -> "PackedBatch":
        """Copy the tensors to a device."""
        moved = {k: send(v, device) for k, v in vars(self).items() if isinstance(v, torch.Tensor)}
        return PackedBatch(**(vars(self) | moved))


def send(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy a tensor from the CPU to a device; to a GPU from pinned memory, so that nobody waits for what it is at."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def pack(sequences: list[Sequence]) -> PackedBatch:
    """Put sequences into one row, without padding. Returns it on the CPU."""
    lens = np.array([len(s) for s in sequences])
    starts = np.concatenate([[0], lens.cumsum()])
    position_ids = np.concatenate([np.arange(n) for n in lens])
    supervised = [np.arange(len(s)) >= s.prompt_len for s in sequences]
    for mask, sequence in zip(supervised, sequences, strict=True):
        for start, end in sequence.gaps:
            mask[start:end] = False
    target = np.flatnonzero(np.concatenate(supervised))
    assert all(0 < s.prompt_len < len(s) for s in sequences), "a sequence needs a prompt and a response"
    ids = np.concatenate([s.ids for s in sequences]).astype(np.int64)
    return PackedBatch(
        input_ids=torch.from_numpy(ids)[None],
        position_ids=torch.from_numpy(position_ids)[None],
        cu_seqlens=torch.from_numpy(starts.astype(np.int32)),
        max_seqlen=int(lens.max()),
        predict_from=torch.from_numpy(target - 1),  # never crosses a boundary: prompt_len >= 1
        labels=torch.from_numpy(ids[target]),
        response_lens=[s.supervised for s in sequences],
    )


def plan_epoch(units: list[Unit], batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    """Shuffle the units and cut them into steps of at most `batch_size` items. Returns list of lists of unit indices.

    With units of several items (a problem's three pairs) a step holds as many whole units as fit. The last step may be
    smaller. seed and epoch alone decide the order.
    """
    # units that continue others travel with them
    wholes = []
    for index, unit in enumerate(units):
        if unit.continues:
            wholes[-1].append(index)
        else:
            wholes.append([index])
    steps, room = [], 0
    for whole in np.random.default_rng([seed, epoch]).permutation(len(wholes)):
        items = sum(units[u].items for u in wholes[whole])
        if items > room or not steps:
            steps.append([])
            room = max(batch_size, items)
        steps[-1] += wholes[whole]
        room -= items
    return steps


def plan_micro_batches(
    step: list[int], units: list[Unit], lengths: list[int], max_tokens: int, num_ranks: int, quadratic: float = 0.0
) -> list[list[list[int]]]:
    """Pack the units of one step into micro-batches, the same number for every rank.

    step: unit indices. lengths: tokens per sequence. quadratic: what attention adds to the cost of a sequence of n
    tokens, in units of one token's cost: quadratic · n² (model.cost.quadratic). Returns [rank][micro-batch] -> unit
    indices; a micro-batch is empty where a step has fewer units than micro-batches (the caller runs an empty one so
    that collectives match). A unit longer than `max_tokens` gets a micro-batch of its own.

    Rows are not padded, so a row that is not full costs nothing; ranks that wait for each other do, and they wait at
    every micro-batch. So: as few micro-batches a rank as the tokens need, then all of them as equal in cost as they
    can be, the n-th ones of all ranks being neighbours in cost.
    """
    # how many rows the tokens need, rounded up to the same number on every rank
    sizes, costs = _measure(step, units, lengths, quadratic)
    rows = _best_fit(step, sizes, max_tokens)
    count = -(-len(rows) // num_ranks) * num_ranks

    # that many rows of like cost; where one would overflow, best-fit's rows, the costliest of them halved
    rows = _level(step, sizes, costs, max_tokens, count) or _split(rows, costs, count)

    # dealt to the ranks so that the n-th rows of all are neighbours in cost
    rows.sort(key=lambda row: -sum(costs[u] for u in row))  # stable, so still a function of the inputs alone
    ranks = [[] for _ in range(num_ranks)]
    for start in range(0, count, num_ranks):  # back and forth, so that no rank always gets the heavier one
        group = rows[start : start + num_ranks]
        for rank, row in zip(ranks, group if start // num_ranks % 2 == 0 else reversed(group), strict=True):
            rank.append(row)
    return ranks


def plan_stats(
    plan: list[list[list[int]]], units: list[Unit], lengths: list[int], max_tokens: int, quadratic: float = 0.0
) -> dict[str, float]:
    """Measure how good a step's plan is: {"fill", "idle"}, both in [0, 1]. plan: what plan_micro_batches returned.

    fill: tokens / (micro-batches · max_tokens), a unit over max_tokens counting as full. idle: the share of all ranks'
    time that is spent waiting for the slowest one at each micro-batch, if time is cost.
    """
    tokens = room = spent = paid = 0
    for group in zip(*plan, strict=True):
        totals = [[sum(v.values()) for v in _measure(row, units, lengths, quadratic)] for row in group]
        tokens += sum(size for size, _ in totals)
        room += sum(max(size, max_tokens) for size, _ in totals)
        spent += sum(cost for _, cost in totals)
        paid += len(plan) * max(cost for _, cost in totals)
    return {"fill": tokens / room, "idle": 1 - spent / paid}


def _measure(step, units, lengths, quadratic):
    """Return ({unit: tokens}, {unit: cost})."""
    sizes, costs = {}, {}
    for u in step:
        lens = [int(lengths[s]) for s in units[u].seqs]
        sizes[u] = sum(lens)
        costs[u] = sizes[u] + quadratic * sum(n * n for n in lens)
    return sizes, costs


def _descending(step, weights):
    return sorted(step, key=lambda u: (-weights[u], u))


def _best_fit(step, sizes, max_tokens):
    """Put each unit, longest first, into the fullest row that still has room for it (best-fit decreasing)."""
    rows, rooms = [], []  # rooms: (tokens left, row), ascending
    for u in _descending(step, sizes):
        at = bisect.bisect_left(rooms, (sizes[u], 0))
        room, row = rooms.pop(at) if at < len(rooms) else (max_tokens, len(rows))
        if row == len(rows):
            rows.append([])
        rows[row].append(u)
        bisect.insort(rooms, (room - sizes[u], row))
    return rows


def _level(step, sizes, costs, max_tokens, count):
    """Make `count` rows of like cost: each unit, costliest first, into the lightest row; None where one has no room."""
    rows, lightest = [[] for _ in range(count)], [(0.0, r, max_tokens) for r in range(count)]
    for u in _descending(step, costs):
        cost, row, room = lightest[0]
        if sizes[u] > room and rows[row]:
            return None
        rows[row].append(u)
        heapq.heapreplace(lightest, (cost + costs[u], row, room - sizes[u]))
    return rows


def _split(rows, costs, count):
    """Make `count` rows of fewer, by halving the costliest ones: better than to run empty ones."""
    rows = list(rows)
    while len(rows) < count:
        heaviest = max(range(len(rows)), key=lambda r: (len(rows[r]) > 1, sum(costs[u] for u in rows[r])))
        row = rows[heaviest]
        rows[heaviest] = row[::2]
        rows.append(row[1::2])  # empty if no row holds two units
    return rows
