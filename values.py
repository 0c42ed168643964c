"""From text to typed values: what a configuration key may hold, and how YAML and words of a command are read as that.

A scalar stays the text that it was written as until the type of its key is known, so `path: 1.10` and `out=007` are
text where text is asked for, and `5e-7` is a number where a number is.
"""

import ast
import dataclasses
import difflib
import inspect
import itertools
import json
import math
import operator
import os
import re
import textwrap
import types
import typing
from collections.abc import Iterator
from dataclasses import MISSING
from typing import Annotated, Any, Literal

import yaml

from errors import UserError, one_line

# the types of keys; a limit is checked where the key is read, and shown by --help
Count = Annotated[int, "at least 1"]
Whole = Annotated[int, "at least 0"]
Seed = Annotated[int, "at least 0", f"at most {2**32 - 1}"]  # what torch and numpy both take
Finite = Annotated[float, "finite"]
NotNegative = Annotated[float, "at least 0", "finite"]
Positive = Annotated[float, "above 0", "finite"]
Share = Annotated[float, "at least 0", "at most 1"]
PositiveShare = Annotated[float, "above 0", "at most 1"]
Filled = Annotated[str, "filled"]  # lists and dicts can be, too
MaybePath = Annotated[str, "a path"]  # `~` at its start is the home folder; empty: none
FilePath = Annotated[MaybePath, "filled"]
Template = Annotated[str, "text with {problem}"]


def _is_path(text):
    try:
        return "\0" not in text and all(len(os.fsencode(name)) < 256 for name in text.split("/"))
    except UnicodeEncodeError:  # half a surrogate pair: no file system has such a name
        return False


COMPARED = {"at least": operator.ge, "above": operator.gt, "at most": operator.le, "below": operator.lt}
HELD = {
    "finite": math.isfinite,
    "filled": len,
    "a path": _is_path,
    "text with {problem}": lambda text: "{problem}" in text,
}

NULLS = ("", "~", "null", "Null", "NULL")
BOOLS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
DIGITS = r"\d+(?:_\d+)*"
INT = re.compile(rf"[+-]?{DIGITS}")
FLOAT = re.compile(rf"[+-]?(?:{DIGITS}\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|[+-]?\.?inf|\.?nan", re.IGNORECASE)
NAMES = {str: "text", int: "a whole number", float: "a number", bool: "true or false", dict: "a dict", list: "a list"}


# --- YAML ---


class Text(str):
    """A scalar as it is written. plain: without quotes, so that null may be meant. where: `file:line`, or empty."""

    plain = True
    where = ""


class Replaced(dict):
    """A mapping that takes the place of what stood there instead of adding to it: `!replace {…}`, or `key:={…}`."""


class Removed(Text):
    """The null that has taken an entry out of a dict."""


class _Loader(yaml.SafeLoader):
    """YAML whose scalars are all Text; a key that stands twice in one mapping is an error."""

    yaml_implicit_resolvers = {"<": [("tag:yaml.org,2002:merge", re.compile("<<"))]}  # noqa: RUF012 (PyYAML's own)

    def construct_text(self, node):
        text = Text(node.value)
        text.plain, text.where = node.style is None, f"{self.name}:{node.start_mark.line + 1}" if self.name else ""
        return text

    def construct_mapping(self, node, deep=False):
        seen = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if isinstance(key, yaml.ScalarNode) and key.value in seen and key.value != "<<":
                raise yaml.constructor.ConstructorError(None, None, f"{key.value} is given twice", key.start_mark)
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


_Loader.add_constructor("tag:yaml.org,2002:str", _Loader.construct_text)
_Loader.add_constructor("!replace", lambda loader, node: Replaced(loader.construct_mapping(node, deep=True)))


class Dumper(yaml.SafeDumper):
    """Writes YAML that both this file and YAML 1.1 read as the same values."""


Dumper.add_implicit_resolver("tag:yaml.org,2002:float", FLOAT, list("+-.0123456789iInN"))


def read(source: bytes | str, name: str = "") -> Any:
    """Read YAML as dicts, lists and Text; None if there is nothing. name: of the file, for messages. Raises UserError
    for what is not YAML; UTF-8 and UTF-16 are taken."""
    try:
        loader = _Loader(source)
        loader.name = name
        return loader.get_single_data()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{name}:{mark.line + 1}" if name and mark else name
        said = one_line(getattr(error, "problem", None) or error).replace('in "<byte string>", ', "")
        said += " (YAML is indented with spaces)" * (r"'\t'" in said)
        raise UserError(f"{where}{': ' * bool(where)}not valid YAML: {said}") from None


def read_word(text: str, kind: Any, key: str) -> Any:
    """Read the value of `key=value` for a key of type `kind` (None: of any): YAML where the type holds further values
    or the text stands in quotes, else the text as it is. `{problem}!` is a text, `{default: "…"}` a dict. Raises
    UserError."""
    kinds = [base_of(option) for option in _options(kind)]
    nests = not kinds or any(map(_nests, kinds))
    opens = ("'", '"', *("[{" if str in kinds else text[:1]) * nests)
    if not text or not text.startswith(opens):
        return Text(text) if text else read("''")  # a text of no letters, no null
    may_be_text = str in kinds and text[0] == "{"
    try:
        value = read(text)
    except UserError as error:
        if may_be_text:
            return Text(text)
        raise UserError(f"{key}: cannot read the value {text!r}: {error}") from None
    return Text(text) if may_be_text and any(map(is_null, value.values())) else value


def is_null(value: Any) -> bool:
    """Tell whether a value is YAML's null."""
    return value is None or (isinstance(value, Text) and value.plain and value in NULLS)


def merge(into: dict, other: dict, once: str = "") -> dict:
    """Add the values of `other` to `into`, nested dicts key by key; null takes out an entry that is there.

    once: the file in which a key must not stand twice. Copies what it adds: an anchor may stand in several places.
    """
    for key, value in other.items():
        there = into.get(key)
        if isinstance(there, dict) and isinstance(value, dict) and not isinstance(value, Replaced):
            merge(there, value, once)
        elif once and key in into:
            raise UserError(f"{once}: {key} is given twice")
        elif is_null(value) and value != "" and key in into:
            into[key] = Removed(value)
        elif not (isinstance(there, dict) and is_null(value)):  # `name:` with nothing under it changes nothing
            into[key] = merge(type(value)(), value) if isinstance(value, dict) else value
    return into


# --- schemas and types ---


def hints_of(schema: type) -> dict[str, Any]:
    """Return {field: its type with limits} of a dataclass."""
    return typing.get_type_hints(schema, include_extras=True)


def default_of(field: dataclasses.Field, base: Any = MISSING) -> Any:
    """Return what `base`, an instance, has in a field; without one the field's own default (MISSING: it has none)."""
    if base is not MISSING:
        return getattr(base, field.name)
    return field.default if field.default_factory is MISSING else field.default_factory()


def keys_of(schema: type, prefix: str = "", base: Any = MISSING) -> Iterator[tuple[str, Any, Any, str]]:
    """Yield (dotted key, type, default, text) of all keys, sections before what they hold; an entry of a dict of
    sections is called NAME, and has no line of its own. base: an instance that holds the defaults."""
    hints, docs = hints_of(schema), field_docs(schema)
    for field in dataclasses.fields(schema):
        key, kind, default = prefix + field.name, hints[field.name], default_of(field, base)
        yield key, kind, default, docs.get(field.name, "")
        nest = nesting(kind)
        if dataclasses.is_dataclass(nest):
            yield from keys_of(nest, f"{key}.", MISSING if default is None else default)
        for inner in filter(dataclasses.is_dataclass, typing.get_args(nest)):
            yield from keys_of(inner, f"{key}.NAME.")


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


def nearest(key: str, schema: type, where: str = "") -> str:
    """Say which key of `schema`, a section whose keys begin with `where`, a mistyped one may have meant."""
    known = reversed([dotted for dotted, *_ in keys_of(schema)])
    by_name = {}  # of keys that end alike the one that lies nearest comes last, and stays
    for dotted in sorted(known, key=lambda dotted: -dotted.count(".")):
        by_name |= {dotted: dotted, dotted.rpartition(".")[2]: dotted}
    here = list(hints_of(schema))
    near = difflib.get_close_matches(key, by_name, n=1) or difflib.get_close_matches(key, here, n=1, cutoff=0.4)
    return f"did you mean {where}{by_name[near[0]]}?" if near else f"valid: {', '.join(where + name for name in here)}"


def base_of(kind: Any) -> Any:
    """Return the type under limits: int, float, str, bool, dict, list, tuple, Literal, or a dataclass."""
    kind = kind.__origin__ if typing.get_origin(kind) is Annotated else kind
    return typing.get_origin(kind) or kind


def nesting(kind: Any) -> Any:
    """Find the dataclass or dict among the types of a key: what a dotted key goes on into. None if there is none."""
    kinds = [option.__origin__ if typing.get_origin(option) is Annotated else option for option in _options(kind)]
    return next((k for k in kinds if dataclasses.is_dataclass(k) or base_of(k) is dict), None)


def type_name(kind: Any) -> str:
    """Say what a key takes, in words: "a list of 3, each a number, at least 0"."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is Annotated:
        limits = args[1:] if args[0] in (int, float) else ()
        return ", ".join(filter(None, (type_name(args[0]), " and ".join(limits))))
    if origin in (types.UnionType, typing.Union):
        return " or ".join([*map(type_name, _options(kind)), *["null"] * (type(None) in args)])
    if origin is Literal:
        return ("one of " if len(args) > 1 else "") + ", ".join(str(arg) or '""' for arg in args)
    if origin:
        return f"{f'a list of {len(args)}' if origin is tuple else NAMES[origin]}, each {type_name(args[-1])}"
    return "a section of keys" if dataclasses.is_dataclass(kind) else NAMES[kind]


def _options(kind):
    """List the types of a union but None; for another type itself."""
    union = typing.get_origin(kind) in (types.UnionType, typing.Union)
    return [option for option in (typing.get_args(kind) if union else (kind,)) if option not in (type(None), None)]


def _nests(kind):
    """Tell whether values of this type hold further values."""
    return base_of(kind) in (dict, list, tuple) or dataclasses.is_dataclass(base_of(kind))


# --- values ---


def build(schema: type, raw: dict, where: str = "", base: Any = MISSING) -> Any:
    """Fill dataclass `schema` from the nested dict `raw`. where: the dotted key of this section, for messages. base: an
    instance that holds the defaults, where they differ from the schema's own. Raises UserError."""
    if not isinstance(raw, dict):
        raw = {} if raw is None or (is_null(raw) and raw == "") else _refuse(raw, schema, where)
    hints, prefix, found = hints_of(schema), where and f"{where}.", {}
    for key in raw:
        if key not in hints:
            raise UserError(f"unknown config key {prefix}{key}{_at(key)}; {nearest(str(key), schema, prefix)}")
    for field in dataclasses.fields(schema):
        name, kind, default = field.name, hints[field.name], default_of(field, base)
        if dataclasses.is_dataclass(kind):  # even when it is missing: a required key inside is then named
            found[name] = build(kind, raw.get(name), prefix + name, default)
        elif name in raw:
            found[name] = convert(raw[name], kind, prefix + name)
        elif default is MISSING:
            raise UserError(f"config key {prefix}{name} is required ({type_name(kind)})")
        else:
            found[name] = default
    return schema(**found)


def convert(value: Any, kind: Any, where: str) -> Any:
    """Turn a value, as `read` gives it, into `kind`. where: the dotted key, for messages. Raises UserError."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)

    # limits, checked on the value of the type that they limit
    if origin is Annotated:
        plain = convert(value, args[0], where)
        for limit in args[1:]:
            words, _, number = limit.rpartition(" ")
            if not (COMPARED[words](plain, float(number)) if words in COMPARED else HELD[limit](plain)):
                raise UserError(f"config key {where} must be {limit}, not {plain!r:.100}{_at(value)}")
        return os.path.expanduser(plain) if "a path" in args else plain

    # one of several types: the one that takes values of this shape, of several the first that takes this one
    if origin in (types.UnionType, typing.Union):
        if is_null(value) and type(None) in args:
            return None
        options = [option for option in _options(kind) if _nests(option) == isinstance(value, dict | list)]
        for option in options:
            try:
                return convert(value, option, where)
            except UserError:
                if len(options) == 1:
                    raise

    # containers, by their elements
    elif dataclasses.is_dataclass(kind):
        return build(kind, value, where)
    elif kind is dict and isinstance(value, dict):
        return _untyped(value, where)
    elif origin is dict and isinstance(value, dict):
        entries = {str(key): inner for key, inner in value.items() if not isinstance(inner, Removed)}
        return {key: convert(inner, args[1], f"{where}.{key}") for key, inner in entries.items()}
    elif origin is list and isinstance(value, list):
        return [convert(inner, args[0], f"{where}[{i}]") for i, inner in enumerate(value)]
    elif origin is tuple and isinstance(value, list | tuple) and len(value) == len(args):
        return tuple(convert(inner, args[i], f"{where}[{i}]") for i, inner in enumerate(value))

    # scalars, as YAML 1.2 and people write them
    elif (origin is Literal and value in args) or (kind is str and isinstance(value, str) and not is_null(value)):
        return str(value)
    text = str(value).strip()
    if kind is int and INT.fullmatch(text) and len(text) < 40:
        return int(text)
    if kind is float and FLOAT.fullmatch(text):
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    if kind is bool and text.lower() in BOOLS:
        return BOOLS[text.lower()]
    _refuse(value, kind, where)


def _untyped(value, where):
    """Return a value whose key has no type as JSON has it: for the body of a request."""
    if isinstance(value, dict):
        return {str(key): _untyped(inner, f"{where}.{key}") for key, inner in value.items()}
    if isinstance(value, list):
        return [_untyped(inner, f"{where}[{i}]") for i, inner in enumerate(value)]
    if not isinstance(value, Text) or not value.plain:
        return str(value) if isinstance(value, str) else value
    if is_null(value):
        return None
    word = value.lower()
    if word in BOOLS and word not in ("true", "false"):
        raise UserError(f"config key {where} is {value}{_at(value)}: write true or false, or put it in quotes")
    try:
        return json.loads(word if word in BOOLS else value, parse_constant=str)
    except ValueError:
        return str(value)


def _at(value):
    return f" ({value.where})" if getattr(value, "where", "") else ""


def _refuse(value, kind, where):
    null = "null (in YAML null, ~ or nothing; it takes out an entry that is there, in quotes it is text)"
    shown = null if is_null(value) else repr(str(value) if isinstance(value, str) else value)[:100]
    raise UserError(f"config key {where} must be {type_name(kind)}, not {shown}{_at(value)}")
