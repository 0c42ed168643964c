"""The demonstration: problems, a scripted teacher and students of pocket size. A leaf: nothing imports it."""
