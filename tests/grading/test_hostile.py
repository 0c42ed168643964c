"""The hostile suite in every mode of isolation that works here: nothing passes, nothing outside is touched."""

import os

import pytest

from bench.hostile import ATTACKS, SECRET, possible, refused
from grading import programs as sandbox

MODES = [mode for mode in sandbox.MODES if sandbox.works(mode)]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("attack", ATTACKS)
def test_hostile_program(attack, mode):
    if not possible(attack, mode):
        pytest.skip(f"this kernel has {sandbox.isolation(mode)}")
    ATTACKS[attack](mode)  # raises AssertionError where the attack succeeds


@pytest.mark.parametrize("mode", MODES)
def test_the_suite_can_fail(mode):
    with pytest.raises(AssertionError, match="it passed"):
        refused(mode, f"print({SECRET!r})")


def test_the_best_mode_is_one_that_works():
    assert sandbox.isolation_mode() == MODES[0]
    assert os.geteuid() == 0 or "root" not in MODES
