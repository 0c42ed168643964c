"""What is evaluated: model folders, hub ids and served models, and what identifies each of them.

A folder is known by the hash of its weights, config and tokenizer, so a copy is the same model and a retrained one is
not. The weights behind a server cannot be hashed: a served model is known by the name it is served under, the fields
that every request to it carries (`extra_body`) and a label of your own, `endpoint:NAME@label`; change the label when
other weights are served under the same name.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from data.records import write_text
from errors import UserError, read_json
from model.files import content_files, model_folder, weight_files

SERVED = "endpoint:"


@dataclass(frozen=True)
class Place:
    """Where a model computes. path: its folder, hub id or endpoint:NAME@label, as the config spells it, so that what is
    known of it holds on another machine too. endpoint: NAME, empty for a folder. folder: where its files lie here;
    empty if they do not."""

    path: str
    endpoint: str = ""
    label: str = ""
    folder: str = ""


def resolve(
    models: dict, runs: dict, names: Iterable[str], endpoints: dict, offline: bool, look: bool = True
) -> dict[str, dict[str, Place]]:
    """Return {model: {run: Place}} of the models in `names`.

    models, runs, endpoints: as in evaluate.py's config. offline: nothing is downloaded and nothing need be there. look:
    for folders; if not, a model is what it was when it was evaluated. Raises UserError naming everything that is
    absent, and two endpoints whose models could not be told apart.
    """
    places, absent, served = {}, [], {}
    for name in dict.fromkeys(names):
        # a path with {run} stands for several
        path = models[name]
        if "{run}" in path and not runs:
            raise UserError(f"models.{name} is {path!r}, but runs names no folder for {{run}}")
        # one place a run; a served model must be distinguishable, a folder must be there
        for run, stands_for in (runs if "{run}" in path else {"": ""}).items():
            spelled = path.replace("{run}", stands_for)
            if spelled.startswith(SERVED):
                place = _served(name, spelled, endpoints)
                other = served.setdefault(json.dumps(identity(place, endpoints, {}), sort_keys=True), place)
                if other.endpoint != place.endpoint:
                    raise UserError(
                        f"models.{name}: {place.path} and {other.path} serve the same name "
                        f"{endpoints[place.endpoint].model!r} and would be one model; give them labels, "
                        f"{SERVED}NAME@label"
                    )
            else:
                folder = model_folder(spelled, offline) if look else None
                place = Place(spelled, folder=folder or "")
                if folder is None and not offline:
                    absent.append(f"{name} ({spelled})")
                elif not offline:
                    weight_files(folder, spelled)  # raises if they are not whole
            places.setdefault(name, {})[run] = place
    if absent:
        raise UserError(f"no such model folder: {', '.join(absent)}; train it first, or correct `models`")
    return places


def _served(name, path, endpoints):
    endpoint, _, label = path.removeprefix(SERVED).partition("@")
    if endpoint not in endpoints:
        known = ", ".join(endpoints) or "none"
        raise UserError(f"models.{name} is {path}, but there is no endpoints.{endpoint} (there is: {known})")
    return Place(path, endpoint, label)


def identity(place: Place, endpoints: dict, cache: dict) -> str | dict | None:
    """Return what stands for the model in a generation's key; None for a folder that is not there and never was."""
    if place.endpoint:
        cfg = endpoints[place.endpoint]
        return {"served": cfg.model, "label": place.label, "extra_body": cfg.extra_body}
    return model_content(place.folder, cache, place.path)


def model_content(folder: str, cache: dict, name: str = "") -> str | None:
    """Return a content hash of a model folder. cache: dict {name, or else the folder: [stamp, hash]}, updated in place,
    so that an unchanged folder is not read again; a folder without its weights has the hash that it had when it was
    evaluated (None if it never was)."""
    name = str(Path(name or folder))
    files = content_files(folder) if folder and Path(folder).is_dir() else []
    if not files:
        return cache.get(name, [None, None])[1]
    stamp = [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files]
    known = cache.get(name)
    if known is None or known[0] != stamp:
        total = hashlib.sha256()
        for file in files:
            total.update(file.name.encode() + b"\0" + str(file.stat().st_size).encode() + b"\0")
            with file.open("rb") as content:
                while block := content.read(1 << 22):
                    total.update(block)
        cache[name] = [stamp, total.hexdigest()[:32]]
    return cache[name][1]


def read_facts(out: str | Path) -> dict:
    """Return what is known of the models: {"folders": as `model_content` keeps them, "speed": {place: [tokens,
    seconds]}}. Raises UserError if the file is damaged."""
    file = Path(out) / "models.json"
    if not file.exists():
        return {"folders": {}, "speed": {}}
    kept = ("folders", "speed")
    remedy = "delete it and run again (folders are hashed anew)"
    return read_json(file, remedy, lambda facts: {name: dict(facts[name]) for name in kept})


def write_facts(out: str | Path, facts: dict) -> None:
    write_text(Path(out) / "models.json", json.dumps(facts, indent=1))
