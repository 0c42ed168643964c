"""Configuration: a dataclass per script, filled from a YAML file and `key=value` words.

    python build_crv.py --config configs/pocket/crv.yaml endpoints.teacher.base_url=http://host:8000/v1

The docstring under a field is its help text (`--help` prints every key with its default). An unknown key or a wrong
type is an error that names the nearest valid key. A YAML file may start from another one with `extends: other.yaml`
(relative to itself). The resolved configuration is written beside the results, and an output folder that holds the
results of another configuration is refused.
"""

import ast
import dataclasses
import difflib
import errno
import inspect
import itertools
import os
import re
import sys
import textwrap
import time
import types
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from errors import UserError

RESOLVED = "config.yaml"


def run_cli(main: Callable[[Any], int | None], schema: type, doc: str) -> None:
    """Entry point of a script: parse the command line, call `main(cfg)`, turn errors for users into one line.

    `main(cfg)` may return an exit status (None means 0). A `UserError` prints `error: …` and exits with 2, and so do a
    full disk and a rank whose peers died; Ctrl-C says how to resume and exits with 130. Everything else keeps its
    traceback: it is a defect of this project.
    """
    # torchrun starts every rank with the same words: only rank 0 prints
    speaks = int(os.environ.get("RANK", "0")) == 0
    cfg = parse(schema, doc)
    try:
        status = main(cfg)
    except UserError as error:
        _speak_in_turn(error)
        sys.exit(2)
    except KeyboardInterrupt:
        if speaks:
            print("\nstopped; run the same command again to resume", file=sys.stderr, flush=True)
        sys.exit(130)
    # what the machine refuses, not this project's fault: a full disk, a full GPU, a rank that is gone
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        what = f"cannot write {error.filename or 'to disk'}: {error.strerror}"
        _speak_in_turn(f"{what}; once there is room, run the same command again to resume")
        sys.exit(2)
    except RuntimeError as error:
        if type(error).__name__ == "OutOfMemoryError":
            _speak_in_turn(
                "out of GPU memory; a smaller batch.max_tokens or parallel.activation_checkpointing=full needs less, "
                "and --plan shows what fits"
            )
            sys.exit(2)
        if "gloo" not in str(error) and type(error).__name__ != "DistBackendError":
            raise
        reason = re.sub(r"^\[\S+\] ", "", str(error).splitlines()[0]).split(". ")[0]
        print(
            f"error: lost contact with another rank ({reason}); run the same command again to resume",
            file=sys.stderr,
            flush=True,
        )
        sys.exit(2)
    sys.exit(status or 0)


def parse(schema: type, doc: str) -> Any:
    """Read the configuration from this process's command line. `--help` is answered, bad words are refused, by exiting.

    A script whose imports take seconds (torch, transformers) calls it once before them, under `__main__`, so that both
    are answered at once; `run_cli` parses again.
    """
    argv = sys.argv[1:]
    if not argv or "--help" in argv or "-h" in argv:
        print(help_text(schema, doc))
        sys.exit(0 if argv else 2)
    try:
        return load(schema, argv)
    except UserError as error:
        _speak_in_turn(error)
        sys.exit(2)


def _speak_in_turn(error, patience=15.0):
    """Print the error once, whichever ranks met it.

    torchrun ends all ranks as soon as one exits, so the others wait for rank 0 to say what they most often have in
    common. Who still lives after `patience` seconds is alone with its error.
    """
    rank = int(os.environ.get("RANK", "0"))
    if rank > 0:
        time.sleep(patience)
    print(f"error: {error}" + f" (on rank {rank})" * (rank > 0), file=sys.stderr, flush=True)


def load(schema: type, argv: list[str]) -> Any:
    """Fill `schema` from words: `--config FILE`, `--flag` for boolean fields, `key=value`, `nested.key=value`.

    `--mode key=value …` for a field whose type is a section or None: the words behind it may leave the section out.
    """
    raw, words, modes, mode = {}, list(argv), _modes(schema), None
    while words:
        word = words.pop(0)
        if word == "--config":
            if not words:
                raise UserError("--config needs a file name")
            _merge(raw, read_yaml(Path(words.pop(0))))
        elif word.removeprefix("--") in modes and word.startswith("--"):
            mode = word[2:]
            raw.setdefault(mode, {})
        elif word.startswith("--") and "=" not in word:  # --render-only is render_only=true
            _set(raw, word[2:].replace("-", "_"), True)
        elif "=" in word:
            key, value = word.removeprefix("--").split("=", 1)
            # behind --mode a plain word is the mode's, unless the schema alone has it: a mistyped one is told of those
            own, rest = ({f.name for f in dataclasses.fields(s)} for s in (modes.get(mode, schema), schema))
            if mode and (key in own or not (key in rest or "." in key)):
                key = f"{mode}.{key}"
            try:
                _set(raw, key, yaml.safe_load(value) if value else "")
            except yaml.YAMLError as error:
                reason = " ".join(str(error).split())
                raise UserError(f"{key}: cannot read the value {value!r}: {reason}") from None
        else:
            raise UserError(f"unexpected word {word!r}: use --config FILE and key=value")
    return build(schema, raw)


def _modes(schema):
    """{name: section} of the fields that are a section or None: what a command is asked instead of how it runs."""
    found = {}
    for name, kind in typing.get_type_hints(schema).items():
        sections = [a for a in typing.get_args(kind) if dataclasses.is_dataclass(a)]
        if sections and type(None) in typing.get_args(kind):
            found[name] = sections[0]
    return found


def read_yaml(path: Path) -> dict:
    """Read a YAML file as a dict, after following `extends`."""
    if not path.is_file():
        raise UserError(f"no such config file: {path}")
    try:
        raw = yaml.safe_load(path.read_text()) or {}
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(raw, dict):
        raise UserError(f"{path} must hold key: value lines")
    base = raw.pop("extends", None)
    nested = read_yaml(path.parent / base) if base else {}
    for key, value in raw.items():  # dotted keys too, so that a resolved config can be given to --config again
        _set(nested, str(key), value)
    return nested


def build(schema: type, raw: dict, where: str = "", base: Any = None) -> Any:
    """Fill dataclass `schema` from the nested dict `raw`. where: dotted prefix for messages. base: an instance that
    holds the defaults, where they differ from the schema's own."""
    fields = {f.name: f for f in dataclasses.fields(schema)}
    for key in raw:
        if key not in fields:
            near = difflib.get_close_matches(str(key), list(fields), n=1, cutoff=0.4)
            hint = f"did you mean {where}{near[0]}?" if near else f"valid: {', '.join(where + n for n in fields)}"
            raise UserError(f"unknown config key {where}{key}; {hint}")
    hints = typing.get_type_hints(schema)
    values = {}
    for name, field in fields.items():
        default = _default(field, base)
        if dataclasses.is_dataclass(hints[name]):  # even when it is missing: a required key inside is then named
            inner = raw.get(name) or {}
            if not isinstance(inner, dict):
                raise UserError(f"config key {where}{name} holds further keys, not the value {inner!r}")
            default = None if default is dataclasses.MISSING else default
            values[name] = build(hints[name], inner, f"{where}{name}.", default)
        elif name in raw:
            values[name] = _convert(raw[name], hints[name], where + name)
        elif default is dataclasses.MISSING:
            raise UserError(f"config key {where}{name} is required ({_type_name(hints[name])})")
        else:
            values[name] = default
    return schema(**values)


def _default(field, base):
    if base is not None:
        return getattr(base, field.name)
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def _convert(value, kind, where):
    # sections, unions and choices
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):  # a value of dict[str, section]
        if not isinstance(value, dict):
            raise UserError(f"config key {where} holds further keys, not the value {value!r}")
        return build(kind, value, where + ".")
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in args:
            return None
        kinds = [a for a in args if a is not type(None)]
        for candidate in kinds[:-1]:
            try:
                return _convert(value, candidate, where)
            except UserError:
                continue
        return _convert(value, kinds[-1], where)
    if origin is typing.Literal:
        if value not in args:
            raise UserError(f"config key {where} is {value!r}; it must be one of {', '.join(map(str, args))}")
        return value
    # containers, by their elements
    if origin is dict and isinstance(value, dict):
        return {str(k): _convert(v, args[1], f"{where}.{k}") for k, v in value.items()}
    if origin in (list, tuple) and isinstance(value, list | tuple):
        inner = args if origin is tuple and Ellipsis not in args else [args[0]] * len(value)
        if len(inner) != len(value):
            raise UserError(f"config key {where} needs {len(inner)} values, not {len(value)}: {value!r}")
        return origin(_convert(v, k, f"{where}[{i}]") for i, (v, k) in enumerate(zip(value, inner, strict=True)))
    # plain values; numbers as YAML and people write them
    if kind is float and isinstance(value, int | float | str) and not isinstance(value, bool):
        try:  # YAML reads 1e-5 (no dot) as a string
            return float(value)
        except ValueError:
            pass
    if kind is str and isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    if isinstance(kind, type) and isinstance(value, kind) and not (kind is int and isinstance(value, bool)):
        return value
    raise UserError(f"config key {where} must be {_type_name(kind)}, not {value!r}")


def _type_name(kind):
    if dataclasses.is_dataclass(kind):
        return "a section"
    return str(kind).replace("typing.", "") if typing.get_origin(kind) else getattr(kind, "__name__", str(kind))


def _set(raw, dotted, value):
    *parents, last = dotted.split(".")
    for parent in parents:
        raw = raw.setdefault(parent, {})
        if not isinstance(raw, dict):
            raise UserError(f"config key {dotted}: {parent} already has a plain value")
    raw[last] = _merge(raw[last], value) if isinstance(value, dict) and isinstance(raw.get(last), dict) else value


def _merge(into, other):
    for key, value in other.items():
        into[key] = _merge(into[key], value) if isinstance(value, dict) and isinstance(into.get(key), dict) else value
    return into


def field_docs(schema: type) -> dict[str, str]:
    """Read {field name: the docstring under it} from the source of the dataclass and of those it inherits from."""
    docs = {}
    for part in reversed([c for c in schema.__mro__ if dataclasses.is_dataclass(c)]):
        body = ast.parse(textwrap.dedent(inspect.getsource(part))).body[0].body
        for line, following in itertools.pairwise(body):
            is_doc = isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
            if isinstance(line, ast.AnnAssign) and is_doc and isinstance(following.value.value, str):
                docs[line.target.id] = inspect.cleandoc(following.value.value)
    return docs


def help_text(schema: type, doc: str) -> str:
    """Write what --help prints: the script's docstring, and every key with its type, default and text."""
    lines = [inspect.cleandoc(doc), "", "Keys (YAML file, or key=value on the command line):", ""]
    return "\n".join(lines + _help_lines(schema, ""))


def _help_lines(schema, prefix, base=None):
    docs, hints, lines, modes = field_docs(schema), typing.get_type_hints(schema), [], _modes(schema)
    for field in dataclasses.fields(schema):
        if field.name in modes:
            section = modes[field.name]
            text = textwrap.fill(" ".join(inspect.cleandoc(section.__doc__).split()), 100)
            lines += [f"  --{field.name} key=value …", textwrap.indent(text, "      ")]
            lines += textwrap.indent("\n".join(_help_lines(section, "")), "    ").splitlines()
            continue
        kind, key = hints[field.name], prefix + field.name
        text = textwrap.indent(textwrap.fill(" ".join(docs.get(field.name, "").split()), 100), "      ")
        default = _default(field, base)
        if dataclasses.is_dataclass(kind):
            lines += [f"  {key}.*", text] if text.strip() else []
            lines += _help_lines(kind, key + ".", None if default is dataclasses.MISSING else default)
            continue
        shown = "(required)" if default is dataclasses.MISSING else f"= {default!r}"
        lines += [f"  {key}: {_type_name(kind)} {shown}"] + ([text] if text.strip() else [])
        inner = typing.get_args(kind)
        if typing.get_origin(kind) is dict and dataclasses.is_dataclass(inner[1]):
            lines += _help_lines(inner[1], f"{key}.NAME.")
    return lines


def flat(cfg: Any) -> dict[str, Any]:
    """List {dotted key: value} of a dataclass instance, for comparing and logging; without modes (`--plan`)."""
    out = {}

    def walk(value, prefix):
        if isinstance(value, dict):
            for key, inner in value.items():
                walk(inner, f"{prefix}.{key}" if prefix else str(key))
        else:
            out[prefix] = list(value) if isinstance(value, tuple) else value

    modes = _modes(type(cfg))
    walk({key: value for key, value in dataclasses.asdict(cfg).items() if key not in modes}, "")
    return out


def at_least_one(cfg: Any, *keys: str) -> None:
    """Refuse a count below 1 among these dotted keys (null: not set). Raises UserError."""
    for key in keys:
        value = flat(cfg)[key]
        if value is not None and value < 1:
            raise UserError(f"config key {key} must be at least 1, not {value}")


def check_folder(folder: str | Path) -> None:
    """Raise UserError if there is a file where this folder, or one that it is to lie in, should be."""
    file = next((p for p in (Path(folder), *Path(folder).parents) if p.exists() and not p.is_dir()), None)
    if file:
        raise UserError(f"{folder} cannot hold results: {file} is a file; set another folder")


def check_output(cfg: Any, folder: str | Path, free: Sequence[str] = ()) -> None:
    """Refuse an output folder that holds the results of another config; writes nothing.

    free: dotted prefixes of keys that may change between a run and its resumption (logging, endpoint addresses, …).
    Raises UserError naming the keys that differ.
    """
    check_folder(folder)
    folder, mine = Path(folder), flat(cfg)
    if not (folder / RESOLVED).exists():
        # a journal may come first: another folder's run, which shares it, wrote it; its answers are found by content
        if folder.exists() and any(path.name not in (RESOLVED + ".tmp", "journal.jsonl") for path in folder.iterdir()):
            raise UserError(f"{folder} is not empty and was not made by this script; set another output folder")
        return
    try:
        known = dict(yaml.safe_load((folder / RESOLVED).read_text()) or {})
    except (yaml.YAMLError, ValueError, TypeError):  # the latter two: not UTF-8, no mapping
        raise UserError(
            f"{folder / RESOLVED} is damaged, it is no resolved config; restore it, or set another output folder"
        ) from None
    # a section that an older version had and this one has not decides nothing
    known = {key: value for key, value in known.items() if key.partition(".")[0] in cfg.__dataclass_fields__}
    changed = sorted(
        key
        for key in mine.keys() | known.keys()
        if mine.get(key) != known.get(key) and not any(key == f or key.startswith(f + ".") for f in free)
    )
    if changed:
        shown = "; ".join(f"{k}: {known.get(k)!r} there, {mine.get(k)!r} now" for k in changed[:5])
        more = f" and {len(changed) - 5} more" if len(changed) > 5 else ""
        raise UserError(
            f"{folder} holds the results of another configuration ({shown}{more}); "
            f"set another output folder, or delete this one"
        )


def claim_output(cfg: Any, folder: str | Path, free: Sequence[str] = ()) -> None:
    """Write the resolved config into `folder`, or refuse as `check_output` does.

    Called once the inputs are known to be good, so that a mistyped path leaves no folder behind that refuses the
    corrected command.
    """
    check_output(cfg, folder, free)
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:  # no permission, a read-only disk, …
        raise UserError(f"cannot make {folder}: {error.strerror}; set another output folder") from None
    partial = folder / (RESOLVED + ".tmp")  # a kill leaves no half of it
    partial.write_text(yaml.safe_dump(flat(cfg), sort_keys=False, allow_unicode=True), encoding="utf-8")
    partial.replace(folder / RESOLVED)
