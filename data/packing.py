"""Batch plans, and the packing of sequences into rows without padding.

Everything here is a pure function of (lengths, seed, epoch): a resumed run walks the very same plan, and no loader
state needs saving. The words:

    unit         sequences that travel together: one example (SFT), or all responses of a problem's pairs (CogPO), so
                 that a response shared by several pairs is run once
    step         the units of one optimizer step, `batch_size` items in all (examples, or pairs)
    micro-batch  units that are packed into one row of at most `max_tokens` tokens
"""

from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class Unit:
    """seqs: indices of sequences. items: how many examples or pairs it counts for. payload: the caller's own."""

    seqs: tuple
    items: int = 1
    payload: tuple = ()


@dataclass
class PackedBatch:
    """S sequences in one row of T tokens, N of them supervised. Log-prob n belongs to labels[n]."""

    input_ids: torch.Tensor  # int64 [1, T]
    position_ids: torch.Tensor  # int64 [1, T], from 0 in every sequence
    cu_seqlens: torch.Tensor  # int32 [S+1]
    max_seqlen: int
    predict_from: torch.Tensor  # int64 [N], the position whose hidden state predicts the token
    labels: torch.Tensor  # int64 [N]
    response_lens: list  # S lengths, summing to N

    def to(self, device):
        moved = {k: v.to(device, non_blocking=True) for k, v in vars(self).items() if isinstance(v, torch.Tensor)}
        return PackedBatch(**(vars(self) | moved))


def pack(sequences):
    """sequences: list of data.render.Sequence. Returns a PackedBatch on the CPU."""
    lens = np.array([len(s) for s in sequences])
    starts = np.concatenate([[0], lens.cumsum()])
    position_ids = np.concatenate([np.arange(n) for n in lens])
    supervised = np.concatenate([np.arange(len(s)) >= s.prompt_len for s in sequences])
    target = np.flatnonzero(supervised)
    assert all(0 < s.prompt_len < len(s) for s in sequences), "a sequence needs a prompt and a response"
    ids = np.concatenate([s.ids for s in sequences]).astype(np.int64)
    return PackedBatch(
        input_ids=torch.from_numpy(ids)[None],
        position_ids=torch.from_numpy(position_ids)[None],
        cu_seqlens=torch.from_numpy(starts.astype(np.int32)),
        max_seqlen=int(lens.max()),
        predict_from=torch.from_numpy(target - 1),  # never crosses a boundary: prompt_len >= 1
        labels=torch.from_numpy(ids[target]),
        response_lens=[len(s) - s.prompt_len for s in sequences],
    )


def plan_epoch(units, batch_size, seed, epoch):
    """Shuffle the units and cut them into steps of at most `batch_size` items. Returns list of lists of unit indices.

    With units of several items (a problem's three pairs) a step holds as many whole units as fit. The last step may be
    smaller. seed and epoch alone decide the order.
    """
    steps, room = [], 0
    for index in np.random.default_rng([seed, epoch]).permutation(len(units)):
        items = units[index].items
        if items > room or not steps:
            steps.append([])
            room = max(batch_size, items)
        steps[-1].append(int(index))
        room -= items
    return steps


def plan_micro_batches(step, units, lengths, max_tokens, num_ranks):
    """Pack the units of one step into micro-batches, the same number for every rank.

    step: unit indices. lengths: tokens per sequence. Returns [rank][micro-batch] -> unit indices; a micro-batch is
    empty where a rank has none left (the caller runs an empty one so that collectives match). Best-fit decreasing; a
    unit longer than `max_tokens` gets a micro-batch of its own. Micro-batches are dealt to ranks by cost, heaviest
    first, so that ranks wait little for each other.
    """
    size = {u: sum(int(lengths[s]) for s in units[u].seqs) for u in step}
    bins, rooms = [], []
    for unit in sorted(step, key=lambda u: (-size[u], u)):
        fits = [b for b, room in enumerate(rooms) if room >= size[unit]]
        if fits:
            best = min(fits, key=lambda b: rooms[b])
        else:
            best = len(bins)
            bins.append([])
            rooms.append(max_tokens)
        bins[best].append(unit)
        rooms[best] -= size[unit]
    while len(bins) % num_ranks and any(len(b) > 1 for b in bins):  # rather split a full one than run an empty one
        heaviest = max((b for b in range(len(bins)) if len(bins[b]) > 1), key=lambda b: sum(size[u] for u in bins[b]))
        half = len(bins[heaviest]) // 2
        bins.append(bins[heaviest][half:])
        bins[heaviest] = bins[heaviest][:half]
    bins += [[] for _ in range(-len(bins) % num_ranks)]
    bins.sort(key=lambda b: -sum(size[u] for u in b))  # stable, so still a function of the inputs alone
    ranks = [[] for _ in range(num_ranks)]
    for start in range(0, len(bins), num_ranks):  # back and forth, so that no rank always gets the heavier one
        row = bins[start : start + num_ranks]
        for rank, micro in zip(ranks, row if start // num_ranks % 2 == 0 else reversed(row), strict=True):
            rank.append(micro)
    return ranks
