"""The tiny models: each has the vocabulary of its tokenizer, as that is loaded again."""

import pytest

from model.load import load_config, load_tokenizer
from pocket.tiny import FAMILIES, make_model


@pytest.mark.parametrize("family", FAMILIES)
def test_model_and_tokenizer_belong_together(tmp_path, family):
    folder = make_model(tmp_path / "m", family)
    assert len(load_tokenizer(folder)) == load_config(folder).vocab_size
