"""build_crv.py with pauses of hundredths of a second where it has seconds; `constant.limits.FIRST_PAUSE=0.1` among its
words sets a constant of a module in agents/."""

import importlib
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import build_crv
from config import run_cli

words = ["constant.limits.FIRST_PAUSE=0.01", *sys.argv[1:]]
for word in words:
    if word.startswith("constant."):
        _, module, assignment = word.split(".", 2)
        name, value = assignment.split("=")
        assert hasattr(importlib.import_module(f"agents.{module}"), name)
        setattr(importlib.import_module(f"agents.{module}"), name, float(value))
sys.argv[1:] = [word for word in words if not word.startswith("constant.")]
run_cli(build_crv.main, build_crv.Config, build_crv.__doc__)
