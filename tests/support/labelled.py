"""The labelled answers in ../shared/data, which are not distributed with the project."""

import json
from pathlib import Path

import pytest

CORPORA = Path(__file__).resolve().parents[3] / "shared" / "data"


def corpus(name):
    """Return the rows of a file; the test is skipped where it is not there."""
    file = CORPORA / name
    if not file.exists():
        pytest.skip(f"the labelled corpora are not here ({file})")
    return [json.loads(line) for line in file.open(encoding="utf-8")]
