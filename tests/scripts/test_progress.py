"""The bar of a run that nobody watches on a terminal: lines in a log."""

from progress import Progress


def test_a_value_stays_until_there_is_a_newer_one(capfd):
    with Progress(3, "sft", unit="step") as bar:
        bar.update(loss=0.7, heldout=0.9)
        bar.update(loss=0.6)
        bar.update(loss=0.5)
    begun, ended = capfd.readouterr().err.splitlines()
    assert begun.startswith("sft: 0/3 step")
    assert ended.startswith("sft: 3/3 step") and "loss=0.5" in ended and "heldout=0.9" in ended
