"""Plans: every unit once, within the budget, the same on every machine; packing: labels where they belong."""

import numpy as np
import pytest

from data.packing import Unit, pack, plan_epoch, plan_micro_batches
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
