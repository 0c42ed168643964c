"""Configuration: a dataclass per script, filled from a YAML file and `key=value` words.

    python build_crv.py --config configs/pocket/crv.yaml endpoints.teacher.base_url=http://host:8000/v1

The docstring under a field is its help text (`--help` prints every key with its default), its type (values.py) what it
may hold. An unknown key is an error that names the nearest valid one. The resolved configuration is written beside the
results, and an output folder that holds the results of another configuration is refused.
"""

import dataclasses
import errno
import functools
import inspect
import json
import os
import re
import select
import sys
import textwrap
import time
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

import values
from errors import UserError
from values import MISSING, Text, hints_of, is_null, keys_of, merge, nesting, type_name

# for torch, imported after this: rows differ in length, which would fragment GPU memory in blocks of fixed size
if not os.environ.keys() & {"PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"}:
    os.environ["PYTORCH_ALLOC_CONF"] = "expandable_segments:True"

RESOLVED = "config.yaml"
WORDS = """\
Keys stand in YAML files (--config FILE; of several the later wins) or are words, key=value, which win over all files. A
file may start from another: `extends: other.yaml`. Text is taken as it is written, [lists] and {dicts: …} are YAML. A
dict is added to; dict:={…}, in a file `dict: !replace {…}`, takes its place, dict.NAME=null takes out an entry. A NAME
may hold dots, in doubt in quotes: models."Qwen2.5-7B"=…; ~ is the home folder."""


def run_cli(main: Callable[[Any], int | None], schema: type, doc: str) -> None:
    """Run a script: parse the command line, and call `main(cfg)` as `run_main` does."""
    run_main(main, parse(schema, doc))


def run_main(main: Callable[..., int | None], *given: Any) -> None:
    """Call `main(*given)`, and turn errors for users into one line.

    It may return an exit status (None means 0). A `UserError` prints `error: …` and exits with 2, and so do a disk that
    is full or not to be written and a rank whose peers died; Ctrl-C says how to resume and exits with 130. Everything
    else keeps its traceback: it is a defect of this project.
    """
    try:
        status = main(*given)
        sys.stdout.flush()
    except UserError as error:
        _give_up(error)
    except KeyboardInterrupt:
        if int(os.environ.get("RANK", "0")) == 0:  # torchrun starts every rank with the same words
            print("\nstopped; run the same command again to resume", file=sys.stderr, flush=True)
        sys.exit(130)
    # what the machine refuses, not this project's fault: a full disk, a full GPU, a rank that is gone
    except OSError as error:
        if isinstance(error, BrokenPipeError) and _reader_has_left():
            sys.exit(141)
        where = f"{error.filename or 'to disk'}: {error.strerror}"
        if error.filename and error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            _give_up(f"cannot open {where}")
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        _give_up(f"cannot write {where}; once there is room, run the same command again to resume")
    except RuntimeError as error:
        if type(error).__name__ == "OutOfMemoryError":
            _give_up(
                "out of GPU memory; a smaller batch.max_tokens or parallel.activation_checkpointing=full needs less, "
                "and --plan shows what fits"
            )
        if "gloo" not in str(error) and type(error).__name__ != "DistBackendError":
            raise
        reason = re.sub(r"^\[\S+\] ", "", str(error).splitlines()[0]).split(". ")[0]
        _give_up(f"lost contact with another rank ({reason}); run the same command again to resume", patience=0)
    sys.exit(status or 0)


def parse(schema: type, doc: str) -> Any:
    """Read the configuration from this process's command line. `--help` is answered, bad words are refused, by exiting.

    A script whose imports take seconds (torch, transformers) calls it once before them, under `__main__`, so that both
    are answered at once; `run_cli` parses again.
    """
    argv = sys.argv[1:]
    if not argv or "--help" in argv or "-h" in argv:
        try:
            print(help_text(schema, doc), flush=True)
        except BrokenPipeError:
            _reader_has_left()
        sys.exit(0 if argv else 2)
    try:
        return load(schema, argv)
    except UserError as error:
        _give_up(error)


def _reader_has_left():
    """Tell whether whoever read the output has closed it (`| head`); the rest then goes nowhere."""
    watch = select.poll()
    watch.register(sys.stdout, 0)
    left = bool(watch.poll(0))
    if left:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return left


def _give_up(error, patience=15.0):
    """Print the error once, whichever ranks met it, and exit with 2.

    torchrun ends all ranks as soon as one exits, so the others wait for rank 0 to say what they most often have in
    common. Who still lives after `patience` seconds is alone with its error.
    """
    rank = int(os.environ.get("RANK", "0"))
    if rank > 0:
        time.sleep(patience)
    print(f"error: {error}" + f" (on rank {rank})" * (rank > 0), file=sys.stderr, flush=True)
    sys.exit(2)


def load(schema: type, argv: list[str]) -> Any:
    """Fill `schema` from words in any order. Raises UserError.

    `--config FILE` or `--config=FILE`: of several the later wins. `key=value`, `nested.key=value`: win over all files.
    `key:={…}` takes the place of a dict instead of adding to it, `dict.NAME=null` takes out an entry.
    `--flag` for boolean fields. `--mode` for a field whose type is a section or None: words may leave the section out.
    """
    try:
        return values.build(schema, _gather(schema, argv))
    except RecursionError:
        raise UserError("a value of the configuration lies too deep, or holds itself") from None


def _gather(schema, argv):
    """Read files and words into one nested dict."""
    # files first, wherever they stand
    raw, words, asked, modes, queue = {}, [], {}, modes_of(schema), iter(argv)
    for word in queue:
        flag, key, replaces, text = match.groups() if (match := WORD.fullmatch(word)) else ("", "", "", None)
        key = key.replace("-", "_") if flag else key
        if flag and key == "config":
            file = next(queue, "") if text is None else text
            if not file:
                raise UserError("--config needs a file name")
            merge(raw, read_yaml(Path(os.path.expanduser(file)), schema))
        elif flag and text is None and key in modes:
            asked[key] = modes[key]
        elif flag or text is not None:  # --render-only is render_only=true
            words.append((key, replaces, "true" if text is None else text))
        else:
            raise UserError(f"unexpected word {word!r}: use --config FILE and key=value")

    # then the words: one that the schema lacks and a mode has is the mode's
    merge(raw, {mode: {} for mode in asked})
    for key, replaces, text in words:
        owner = [mode for mode, section in asked.items() if key not in hints_of(schema) and key in hints_of(section)]
        names, kind = _path(schema, owner + _split(key), text[:1] == "{" or is_null(Text(text)))
        value = values.read_word(text, kind, key)
        if replaces and not isinstance(value, dict):
            raise UserError(f"{key}:= takes the place of a dict, and {text} is none; write {key}={text}")
        merge(raw, _nested(names, values.Replaced(value) if replaces else value))
    return raw


def modes_of(schema: type) -> dict[str, type]:
    """Return {name: section} of fields that are a section or None: what a command is asked instead of how it runs."""
    nests = {name: (kind, nesting(kind)) for name, kind in hints_of(schema).items()}
    return {name: nest for name, (kind, nest) in nests.items() if dataclasses.is_dataclass(nest) and nest is not kind}


def read_yaml(path: Path, schema: type | None = None, above: tuple = ()) -> dict:
    """Read a YAML file as nested dicts, lists and Text, after following `extends`. schema: tells where a dotted key
    ends; without one keys are left as they are. Raises UserError."""
    try:
        raw = values.read(path.read_bytes(), str(path))
    except OSError as error:
        raise UserError(f"cannot read the config {path}: {error.strerror}") from None
    if not (isinstance(raw, dict) or is_null(raw)):
        raise UserError(f"{path} must hold key: value lines")
    raw = raw if isinstance(raw, dict) else {}

    # what it starts from, then its own keys: dotted ones too, so that a resolved config can be given to --config again
    base, own = raw.pop("extends", None), {}
    if not (base is None or isinstance(base, str)):
        raise UserError(f"{path}: extends takes the name of one file, not {base!r}")
    if path.resolve() in above:
        raise UserError(f"{path} extends itself")
    nested = read_yaml(path.parent / os.path.expanduser(base), schema, (*above, path.resolve())) if base else {}
    for key, value in raw.items():
        names = _path(schema, _split(key), isinstance(value, dict) or is_null(value))[0] if schema else [key]
        merge(own, _nested([key] if names == [key] else names, value), once=str(path))  # [key] knows its line
    return merge(nested, own)


# KEY=value, KEY:=value, or --KEY with or without a value; in quotes a name may hold dots and =
QUOTED = r'"(?:[^"\\]|\\.)*"'
WORD = re.compile(rf'(--)?((?:{QUOTED}|[^="])+?)(?:(:?)=(.*))?', re.DOTALL)
SEGMENT = re.compile(rf"{QUOTED}|[^.]+")


def dotted(*names: str) -> str:
    """Write a key of several names, those that hold a dot or a quote in quotes: models."Qwen2.5-7B"."""
    return ".".join(json.dumps(n, ensure_ascii=False) if not n or "." in n or '"' in n else n for n in names)


def _split(key):
    """Split a dotted key into its names; of one that has a dot too many return the key itself, which nobody knows."""
    parts = SEGMENT.findall(key)
    return [json.loads(p) if p[0] == '"' else p for p in parts] if ".".join(parts) == key else [key]


def _path(kind, names, whole):
    """Find the nested keys that a dotted key means, fields of sections and names of a dict's entries, which may hold
    dots; and the type at its end (None: any). whole: the value is a whole entry, so the key may end with its name."""
    nest = nesting(kind)
    if not names or nest is None:
        return names, str if names else kind
    count, args = 1, typing.get_args(nest)
    if dataclasses.is_dataclass(nest):
        inner = hints_of(nest).get(names[0], str)  # build() refuses an unknown one
    elif not args:
        return names, None
    elif nesting(inner := args[1]) is None:
        count = len(names)
    else:  # the name ends where a field of its section follows
        fields = getattr(nesting(inner), "__dataclass_fields__", ())
        ends = (n for n in range(1, len(names)) if names[n] in fields)
        count = next(ends, len(names) if whole else max(len(names) - 1, 1))
    rest, kind = _path(inner, names[count:], whole)
    return [".".join(names[:count]), *rest], kind


def _nested(names, value):
    return functools.reduce(lambda inner, name: {name: inner}, reversed(names), value)


def help_text(schema: type, doc: str) -> str:
    """Write what --help prints: the script's docstring, and every key with its type, default and text."""
    lines, modes = [inspect.cleandoc(doc), "", *WORDS.splitlines(), "", "Keys:", ""], modes_of(schema)
    for key, kind, default, text in keys_of(schema):
        if key in modes:
            lines.append(f"  --{key} key=value …")
            text = inspect.cleandoc(modes[key].__doc__)
        elif not dataclasses.is_dataclass(kind):
            lines.append(f"  {key}: {type_name(kind)} {'(required)' if default is MISSING else f'= {default!r}'}")
        elif text:
            lines.append(f"  {key}.*")
        lines += [textwrap.indent(textwrap.fill(" ".join(text.split()), 100), "      ")] if text else []
    return "\n".join(lines)


def flat(cfg: Any) -> dict[str, Any]:
    """List {dotted key: value} of a dataclass instance, for comparing and logging; without modes (`--plan`)."""
    modes = modes_of(type(cfg))
    return _flat({key: value for key, value in dataclasses.asdict(cfg).items() if key not in modes}, ())


def _flat(value, names):
    if not (isinstance(value, dict) and value):
        return {dotted(*names): list(value) if isinstance(value, tuple) else value}
    return {key: leaf for name, inner in value.items() for key, leaf in _flat(inner, (*names, str(name))).items()}


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
        ours = {RESOLVED + ".tmp", "journal.jsonl", ".lock"}
        if folder.exists() and not {path.name for path in folder.iterdir()} <= ours:
            raise UserError(f"{folder} is not empty and was not made by this script; set another output folder")
        return
    try:
        known = dict(yaml.safe_load((folder / RESOLVED).read_bytes()))
    except (yaml.YAMLError, ValueError, TypeError):  # the latter two: not UTF-8, no mapping
        raise UserError(
            f"{folder / RESOLVED} is damaged, it is no resolved config; restore it, or set another output folder"
        ) from None
    # another script's record would be overwritten where all keys are free; it lacks what no command here leaves out
    fields = dataclasses.fields(cfg)
    required = {field.name for field in fields if field.default is field.default_factory is dataclasses.MISSING}
    if not required <= {key.partition(".")[0] for key in known}:
        raise UserError(f"{folder} holds a run of another script; set another output folder")
    # a section that an older version had and this one has not decides nothing
    known = {key: value for key, value in known.items() if key.partition(".")[0] in vars(cfg)}
    changed = sorted(key for key in mine.keys() | known.keys() if mine.get(key) != known.get(key))
    changed = [key for key in changed if not f"{key}.".startswith(tuple(f"{prefix}." for prefix in free))]
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
    partial.write_text(
        yaml.dump(flat(cfg), Dumper=values.Dumper, sort_keys=False, allow_unicode=True), encoding="utf-8"
    )
    partial.replace(folder / RESOLVED)
