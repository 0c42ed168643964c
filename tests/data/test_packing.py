"""Plans: every unit once, within the budget, the same on every machine; packing: labels where they belong."""

import random

import numpy as np
import pytest

from data.packing import Unit, pack, plan_epoch, plan_micro_batches, plan_stats
from data.render import Sequence


def random_units(n, seed=0):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(5, 400, 3 * n).tolist()
    units = [Unit((3 * i, 3 * i + 1, 3 * i + 2), 3) if i % 2 else Unit((3 * i, 3 * i + 1), 1) for i in range(n)]
    return units, lengths


def test_an_epoch_walks_every_unit_once_and_no_step_is_too_large():
    units, _ = random_units(101)
    steps = plan_epoch(units, 16, seed=3, epoch=1)
    assert sorted(u for step in steps for u in step) == list(range(101))
    counts = [sum(units[u].items for u in step) for step in steps]
    assert max(counts) <= 16 and min(counts[:-1]) >= 14  # a triad that does not fit waits for the next step


def test_the_plan_depends_on_seed_and_epoch_alone():
    units, _ = random_units(50)
    assert plan_epoch(units, 8, 0, 0) == plan_epoch(units, 8, 0, 0)
    assert plan_epoch(units, 8, 0, 0) != plan_epoch(units, 8, 0, 1)
    assert plan_epoch(units, 8, 0, 0) != plan_epoch(units, 8, 1, 0)


def test_a_unit_larger_than_a_step_still_gets_one():
    assert plan_epoch([Unit((0, 1, 2), 3), Unit((3,), 1)], 2, 0, 0) in ([[0], [1]], [[1], [0]])


@pytest.mark.parametrize("num_ranks", [1, 2, 3, 8])
@pytest.mark.parametrize("max_tokens", [300, 2000, 10**6])
def test_micro_batches_cover_the_step_with_equal_counts(num_ranks, max_tokens):
    units, lengths = random_units(40)
    plan = plan_micro_batches(list(range(40)), units, lengths, max_tokens, num_ranks)
    assert len(plan) == num_ranks and len({len(rank) for rank in plan}) == 1
    micros = [micro for rank in plan for micro in rank]
    assert sorted(u for micro in micros for u in micro) == list(range(40))
    for micro in micros:
        tokens = sum(lengths[s] for u in micro for s in units[u].seqs)
        assert tokens <= max_tokens or len(micro) == 1


def test_ranks_without_work_get_empty_micro_batches():
    plan = plan_micro_batches([0], [Unit((0,))], [10], 100, 4)
    assert sorted(map(len, [micro for rank in plan for micro in rank])) == [0, 0, 0, 1]


def singles(lengths):
    return [Unit((i,)) for i in range(len(lengths))], list(range(len(lengths)))


def long_chains(n, seed=0):
    """Lengths with the mean and the spread of long chains of thought: 1k to 16k tokens, 8k on average."""
    return np.random.default_rng(seed).integers(1000, 16000, n).tolist()


def test_a_row_is_filled_with_what_fits_best():
    """The longest first, each into the fullest row with room: 60 + 40, 55 + 45 rather than 60, 55 + 45, 40."""
    lengths = [40, 55, 45, 60]
    units, step = singles(lengths)
    [rows] = plan_micro_batches(step, units, lengths, max_tokens=100, num_ranks=1)
    assert sorted(sum(lengths[u] for u in row) for row in rows) == [100, 100]
    assert plan_stats([rows], units, lengths, 100) == {"fill": 1.0, "idle": 0.0}


def test_rows_of_a_step_are_full():
    """96 examples up to half a row long: as few rows as their tokens allow."""
    lengths = long_chains(96)
    units, step = singles(lengths)
    [rows] = plan_micro_batches(step, units, lengths, 32768, 1)
    assert len(rows) == -(-sum(lengths) // 32768)


@pytest.mark.parametrize("quadratic", [0.0, 1.4e-5, 1e-3])
def test_ranks_wait_little_for_each_other(quadratic):
    lengths = long_chains(96)
    units, step = singles(lengths)
    plan = plan_micro_batches(step, units, lengths, 32768, 8, quadratic)
    assert plan_stats(plan, units, lengths, 32768, quadratic)["idle"] < 0.02
    totals = [sum(lengths[u] + quadratic * lengths[u] ** 2 for row in rank for u in row) for rank in plan]
    assert max(totals) / min(totals) < 1.02


def test_cost_counts_the_square_of_each_sequence():
    """One of 100 tokens costs more than ten of 10: balanced by tokens the two ranks are level, by cost they are not."""
    lengths = [100] + 10 * [10] + 4 * [20]
    units, step = singles(lengths)
    for quadratic in (0.0, 0.01):
        plan = plan_micro_batches(step, units, lengths, 1000, 2, quadratic)
        beside = next(len(row) for rank in plan for row in rank if 0 in row)
        assert (beside == 1) == (quadratic > 0)
        assert plan_stats(plan, units, lengths, 1000, quadratic)["idle"] < 0.15


def test_idle_is_the_waiting_at_every_micro_batch():
    """Ranks of equal totals (40 each) still wait, if one's heavy micro-batch meets the other's light one."""
    lengths = [30, 10, 10, 30]
    units, _ = singles(lengths)
    assert plan_stats([[[0], [1]], [[2], [3]]], units, lengths, 30)["idle"] == pytest.approx(1 - 80 / 120)
    assert plan_stats([[[0], [1]], [[3], [2]]], units, lengths, 30) == {"fill": 80 / 120, "idle": 0.0}


def test_an_overlong_unit_counts_as_a_full_row():
    units, step = singles([500, 60, 40])
    plan = plan_micro_batches(step, units, [500, 60, 40], 100, 1)
    assert plan == [[[0], [1, 2]]]
    assert plan_stats(plan, units, [500, 60, 40], 100) == {"fill": 1.0, "idle": 0.0}


def test_rather_a_split_row_than_an_empty_one():
    """An overlong unit of many short sequences (110 tokens, cheap) comes after four dear ones that could share rows."""
    units = [Unit(tuple(range(11))), *(Unit((i,)) for i in range(11, 15))]
    lengths = 11 * [10] + 4 * [49]
    plan = plan_micro_batches(range(5), units, lengths, max_tokens=100, num_ranks=2, quadratic=1.0)
    assert sorted(sorted(row) for rank in plan for row in rank) == [[0], [1], [2], [3, 4]]


@pytest.mark.parametrize("seed", range(30))
def test_any_step_is_covered_within_the_budget(seed):
    """Short and overlong units, few and many, tight and loose: each unit once, equal counts, no needless empty row."""
    rng = random.Random(seed)
    units, lengths = random_units(rng.randint(1, 60), seed)
    max_tokens, num_ranks, quadratic = rng.choice([150, 700, 1500, 9000]), rng.randint(1, 9), rng.choice([0, 1e-3])
    step = rng.sample(range(len(units)), rng.randint(1, len(units)))
    plan = plan_micro_batches(step, units, lengths, max_tokens, num_ranks, quadratic)
    rows = [row for rank in plan for row in rank]
    assert len(plan) == num_ranks and len({len(rank) for rank in plan}) == 1
    assert sorted(u for row in rows for u in row) == sorted(step)
    for row in rows:
        assert len(row) <= 1 or sum(lengths[s] for u in row for s in units[u].seqs) <= max_tokens
    assert all(rows) or all(len(row) <= 1 for row in rows)
    assert plan == plan_micro_batches(step, units, lengths, max_tokens, num_ranks, quadratic)


def test_pack_predicts_each_supervised_token_from_the_one_before():
    a = Sequence(np.array([1, 2, 3, 4], dtype=np.int32), 2)
    b = Sequence(np.array([5, 6, 7], dtype=np.int32), 1)
    batch = pack([a, b])
    assert batch.input_ids.tolist() == [[1, 2, 3, 4, 5, 6, 7]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 3, 0, 1, 2]]
    assert batch.cu_seqlens.tolist() == [0, 4, 7] and batch.max_seqlen == 4
    assert batch.labels.tolist() == [3, 4, 6, 7]
    assert batch.input_ids[0, batch.predict_from].tolist() == [2, 3, 5, 6]
    assert batch.response_lens == [2, 2]
