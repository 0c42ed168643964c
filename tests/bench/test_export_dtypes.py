"""The table of what a dtype leaves of a preference stage, on a tiny model."""

import pytest

from bench.export_dtypes import main
from tests.support.scripts import cogpo_words, inside


def test_rounding_to_nearest_drops_what_rounding_at_random_keeps(tiny_qwen, files, tmp_path, capsys):
    inside("train_cogpo.py", *cogpo_words(tiny_qwen, files, tmp_path / "o", optim__lr=2e-5))
    capsys.readouterr()
    main(tiny_qwen, str(tmp_path / "o/model"), str(files / "pairs.jsonl"), limit=None, max_length=1000)
    head, *lines = capsys.readouterr().out.splitlines()
    rows = {
        line[:17].strip(): [[float(x.rstrip("%")) for x in cell.split()] for cell in line[17:].split("|")]
        for line in lines
    }
    assert head.startswith("46 pairs; margins small / medium / large") and len(rows) == 5
    trained, alike, (kept,), _ = rows["as trained"]
    assert trained == alike and min(trained) > 0 and kept == 1.0
    assert rows["float16 nearest"][0] == pytest.approx(trained, abs=0.3)
