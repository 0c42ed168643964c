"""One run over several machines: which problems are whose, and the joint outputs of all of them.

    python build_crv.py --config my.yaml shard=0/8 out=out/crv-0          # … and 1/8 to 7/8 elsewhere
    python -m agents.merge shards='out/crv-*' out=out/crv

Problem k of the input belongs to shard k mod n. What is written is what one run without shards would have written,
byte for byte where the endpoint is deterministic. Shards may differ in what changes no answer (addresses, prices,
caps): the whole has the settings of shard 0, and tells costs at its prices. The journals stay where they are.
"""

import contextlib
import glob
import json
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import yaml

from agents.exports import write_outputs
from agents.tally import show
from config import RESOLVED, read_yaml
from data.records import write_text
from errors import UserError

# what shards may differ in; the input is compared by content
OWN_KEYS = ("shard", "out", "journal", "problems", "probe", "max_cost", "sampling.max_tokens", "report_samples")


@dataclass
class Config:
    shards: str
    """Pattern of the shards' output folders, e.g. out/crv-*"""
    out: str
    """Output folder of the whole."""


def parse_shard(text):
    """(i, n) of "i/n"; (0, 1) of "". Raises UserError."""
    if not text:
        return 0, 1
    index, _, count = text.partition("/")
    if not (index.isdecimal() and count.isdecimal() and int(index) < int(count)):
        raise UserError(f"config key shard must be i/n with i from 0 to n-1, such as 0/8, not {text!r}")
    return int(index), int(count)


def main(cfg):
    folders = sorted(Path(path) for path in glob.glob(cfg.shards))
    out = Path(cfg.out)
    if out in folders or (out.exists() and any(out.iterdir())):
        raise UserError(f"{out} is not empty; delete it, or set another output folder")
    configs, reports = zip(*map(_read, folders), strict=True) if folders else ((), ())
    order = _check(folders, configs, reports, cfg.shards)
    out.mkdir(parents=True, exist_ok=True)
    settings = configs[order[0]] | {"shard": "", "out": cfg.out, "merged_from": [str(folders[i]) for i in order]}
    write_text(out / RESOLVED, yaml.safe_dump(settings, sort_keys=False, allow_unicode=True))
    source, made = reports[0]["input"], reports[0]["made_with"]
    join([folders[i] / "traces.jsonl" for i in order], out / "traces.jsonl", source["problems"])
    show(write_outputs(out, SimpleNamespace(**read_yaml(out / RESOLVED)), made, source, source["problems"]), out)


def _read(folder):
    """(resolved config, report) of a shard; raises UserError if it is none, or not finished."""
    if not (folder / RESOLVED).exists():
        raise UserError(f"{folder} is no output folder of build_crv.py")
    config = yaml.safe_load((folder / RESOLVED).read_text())
    if not (folder / "report.json").exists():
        raise UserError(f"{folder} is not finished; run shard {config['shard']} again, it goes on where it stopped")
    return config, json.loads((folder / "report.json").read_text())


def _check(folders, configs, reports, pattern):
    """Places of shard 0, 1, … in `folders`. Raises UserError unless they are all of one run, each once."""
    if not folders:
        raise UserError(f"no folder matches {pattern}")
    shards = [parse_shard(config.get("shard", "")) for config in configs]
    count = shards[0][1]
    for folder, config, report, shard in zip(folders, configs, reports, shards, strict=True):
        for key in config.keys() | configs[0].keys():
            # how a shard reaches its servers is its own affair; their models are compared below
            own = key in OWN_KEYS or (key.startswith("endpoints.") and ".extra_body" not in key)
            if not own and config.get(key) != configs[0].get(key):
                raise UserError(
                    f"{folder} was made with another {key} ({config.get(key)!r}) than {folders[0]} "
                    f"({configs[0].get(key)!r})"
                )
        if shard[1] != count:
            raise UserError(f"{folder} is shard {config['shard']}, {folders[0]} is {configs[0]['shard']}")
        mine, first = _comparable(report), _comparable(reports[0])
        for key in sorted(mine.keys() | first.keys()):
            if mine.get(key) != first.get(key):
                raise UserError(
                    f"{folder} was made with another {key} ({mine.get(key)!r}) than {folders[0]} ({first.get(key)!r})"
                )
        if shards.count(shard) > 1:
            same = ", ".join(str(f) for f, s in zip(folders, shards, strict=True) if s == shard)
            raise UserError(f"shard {shard[0]}/{count} is there more than once: {same}")
    missing = [f"{i}/{count}" for i in range(count) if (i, count) not in shards]
    if missing:
        raise UserError(f"missing: shard {', '.join(missing)}")
    return [shards.index((i, count)) for i in range(count)]


def _comparable(report):
    """{name: value} of what a report says of the input, the models and the prompts; not of prices."""
    said = {"input": report["input"], **report["made_with"], "prices": None}
    single = {name: value for name, value in said.items() if not isinstance(value, dict)}
    groups = {name: value for name, value in said.items() if isinstance(value, dict)}
    return single | {f"{name}.{key}": value for name, group in groups.items() for key, value in group.items()}


def join(files, out, total):
    """Deal the lines of the shards back into the order of the input: `total` lines, or UserError."""
    with contextlib.ExitStack() as stack, out.open("wb") as joint:
        readers = [stack.enter_context(path.open("rb")) for path in files]
        for number in range(total):
            line = readers[number % len(readers)].readline()
            if not line.endswith(b"\n"):
                raise UserError(f"{files[number % len(files)]} ends early; run that shard again")
            joint.write(line)


if __name__ == "__main__":
    from config import run_cli

    run_cli(main, Config, __doc__)
