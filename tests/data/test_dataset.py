"""From files to units: what is counted, and what is done once only."""

import json

from data.dataset import DataConfig, load_pairs, load_sft, sequences_saved
from data.render import Renderer
from pocket.tiny import make_tokenizer
from tests.support.tiny import pair_rows, sft_rows


class CountingRenderer(Renderer):
    """Notes every response that it renders."""

    def __init__(self, tokenizer):
        super().__init__(tokenizer)
        self.responses = []

    def encode(self, texts):
        self.responses += texts
        return super().encode(texts)


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return DataConfig(str(path))


def test_sequences_saved(tmp_path):
    """12 problems: 4 with one pair, 8 with three pairs over three responses, so 6 passes become 3."""
    config = write(tmp_path / "pairs.jsonl", pair_rows(12))
    renderer = Renderer(make_tokenizer("qwen2"))
    grouped, alone = (load_pairs(config, renderer, by_problem) for by_problem in (True, False))
    assert sequences_saved(grouped.units) == 8 * 3
    assert 2 * sum(u.items for u in grouped.units) - sum(len(u.seqs) for u in grouped.units) == 8 * 3
    assert sequences_saved(alone.units) == 0
    assert sequences_saved(load_sft(write(tmp_path / "sft.jsonl", sft_rows(5)), renderer).units) == 0


def test_each_response_is_tokenized_once(tmp_path):
    renderer = CountingRenderer(make_tokenizer("qwen2"))
    examples = load_pairs(write(tmp_path / "pairs.jsonl", pair_rows(12)), renderer, True)
    assert len(renderer.responses) == len(set(renderer.responses)) == len(examples.sequences) == 8 * 3 + 4 * 2
    assert examples.lengths == [len(s) for s in examples.sequences]
    assert examples.lengths is examples.lengths, "counted at every step, it costs more than planning does"


def test_only_the_first_records(tmp_path):
    renderer = Renderer(make_tokenizer("qwen2"))
    everything = load_sft(write(tmp_path / "sft.jsonl", sft_rows(5)), renderer)
    first = load_sft(DataConfig(str(tmp_path / "sft.jsonl"), limit=2), renderer)
    assert [s.ids.tolist() for s in first.sequences] == [s.ids.tolist() for s in everything.sequences[:2]]
