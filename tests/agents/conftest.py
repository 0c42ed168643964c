"""What all tests of agents share."""

import pytest


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Pauses of hundredths of a second, and deadlines that are hardly longer than `timeout`."""
    monkeypatch.setattr("agents.limits.FIRST_PAUSE", 0.01)
    monkeypatch.setattr("agents.client.TOKENS_PER_SECOND", 1000)
    monkeypatch.setattr("agents.batches.QUIET", 0.1)
