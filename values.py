"""From text to typed values: what a configuration key may hold, and how YAML and words of a command are read as that.

A scalar stays the text that it was written as until the type of its key is known, so `path: 1.10` and `out=007` are
text where text is asked for, and `5e-7` is a number where a number is.
"""

import dataclasses
import difflib
import math
import os
import re
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import yaml

from errors import UserError


@dataclass(frozen=True)
class Bounds:
    """What a number may be; of a list, a dict or a text: its length. above, below: least or most itself is excluded.
    Checked where the key is read, and shown by --help."""

    least: float = -math.inf
    most: float = math.inf
    above: bool = False
    below: bool = False
    infinite: bool = False

    def hold(self, value: Any) -> bool:
        size = value if isinstance(value, int | float) else len(value)
        low = size > self.least if self.above else size >= self.least
        high = size < self.most if self.below else size <= self.most
        return low and high and (self.infinite or math.isfinite(size))

    def __str__(self):
        low = f"{'above' if self.above else 'at least'} {self.least:.10g}" if self.least > -math.inf else ""
        high = f"{'below' if self.below else 'at most'} {self.most:.10g}" if self.most < math.inf else ""
        return " and ".join(filter(None, (low, high)))


class _Path:
    """Marks a text as a path: `~` at its start is the home folder."""


# the types of keys; every number has bounds
Count = Annotated[int, Bounds(1)]
Whole = Annotated[int, Bounds(0)]
Integer = Annotated[int, Bounds()]
Seed = Annotated[int, Bounds(0, 2**32 - 1)]  # what torch and numpy both take
Finite = Annotated[float, Bounds()]
NotNegative = Annotated[float, Bounds(0)]
Positive = Annotated[float, Bounds(0, above=True)]
Share = Annotated[float, Bounds(0, 1)]
PositiveShare = Annotated[float, Bounds(0, 1, above=True)]
Filled = Annotated[str, Bounds(1)]
FilePath = Annotated[str, Bounds(1), _Path]
MaybePath = Annotated[str, _Path]  # empty: none

NULLS = ("", "~", "null", "Null", "NULL")
BOOLS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
DIGITS = r"\d+(?:_\d+)*"
INT = re.compile(rf"[+-]?{DIGITS}")
FLOAT = re.compile(rf"[+-]?(?:{DIGITS}\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|[+-]?\.?inf|\.?nan", re.IGNORECASE)
NAMES = {str: "text", int: "a whole number", float: "a number", bool: "true or false", dict: "further keys"}
PLURALS = {"text": "texts", "a whole number": "whole numbers", "a number": "numbers"}
NUMBERS = {2: "two", 3: "three"}


class Text(str):
    """A scalar as it is written. plain: without quotes, so that null may be meant. where: `file:line`, or empty."""

    plain = True
    where = ""


class Replaced(dict):
    """A mapping that takes the place of what stood there instead of adding to it: `!replace {…}`, or `key:={…}`."""


class Removed(Text):
    """The null that has taken an entry out of a dict."""


EMPTY = Text()  # a text of no letters, no null
EMPTY.plain = False


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

    def construct_replaced(self, node):
        if isinstance(node, yaml.MappingNode):
            return Replaced(self.construct_mapping(node, deep=True))
        return self.construct_text(node) if isinstance(node, yaml.ScalarNode) else self.construct_sequence(node, True)


_Loader.add_constructor("tag:yaml.org,2002:str", _Loader.construct_text)
_Loader.add_constructor("!replace", _Loader.construct_replaced)


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
        said = " ".join(str(getattr(error, "problem", None) or error).replace('in "<byte string>", ', "").split())
        said += " (YAML is indented with spaces)" * (r"'\t'" in said)
        raise UserError(f"{where}{': ' * bool(where)}not valid YAML: {said}") from None


def read_word(text: str, kind: Any, key: str) -> Any:
    """Read the value of `key=value` for a key of type `kind` (None: of any): YAML where the type holds further values
    or the text stands in quotes, else the text as it is. `{problem}!` is a text, `{default: "…"}` a dict. Raises
    UserError."""
    kinds = [base_of(option) for option in _options(kind)]
    nests = not kinds or any(k in (dict, list, tuple) or dataclasses.is_dataclass(k) for k in kinds)
    is_text = any(k is str for k in kinds)
    if not text or not (text[0] in "\"'" or nests) or (is_text and text[0] not in "\"'[{!"):
        return Text(text) if text else EMPTY
    try:
        value = read(text)
        if is_text and isinstance(value, dict):
            convert(value, kind, key)
    except UserError as error:
        if is_text and text[0] == "{":
            return Text(text)
        raise UserError(f"{key}: cannot read the value {text!r}: {error}") from None
    return Text(text) if is_text and isinstance(value, Text) and value.plain else value


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


def build(schema: type, raw: dict, where: str = "", base: Any = None) -> Any:
    """Fill dataclass `schema` from the nested dict `raw`. where: dotted prefix for messages. base: an instance that
    holds the defaults, where they differ from the schema's own. Raises UserError."""
    hints = typing.get_type_hints(schema, include_extras=True)
    for key in raw:
        if key not in hints:
            raise UserError(f"unknown config key {where}{key}{_at(key)}; {nearest(str(key), schema, where)}")
    values = {}
    for field in dataclasses.fields(schema):
        name, kind = field.name, hints[field.name]
        default = default_of(field, base)
        if dataclasses.is_dataclass(kind):  # even when it is missing: a required key inside is then named
            default = None if default is dataclasses.MISSING else default
            values[name] = _section(raw.get(name), kind, where + name, default)
        elif name in raw:
            values[name] = convert(raw[name], kind, where + name)
        elif default is dataclasses.MISSING:
            raise UserError(f"config key {where}{name} is required ({type_name(kind)})")
        else:
            values[name] = default
    return schema(**values)


def default_of(field: dataclasses.Field, base: Any = None) -> Any:
    """Return the default of a field (MISSING if it is required), or what `base`, an instance, has there."""
    if base is not None:
        return getattr(base, field.name)
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def _section(value, kind, where, base=None):
    if not (isinstance(value, dict) or is_null(value)):
        raise UserError(f"config key {where} holds further keys, not the value {_shown(value)}{_at(value)}")
    return build(kind, value if isinstance(value, dict) else {}, where + ".", base)


def keys_of(schema: type, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted key, type) of all keys that hold values; entries of a dict of sections are called NAME."""
    for name, kind in typing.get_type_hints(schema, include_extras=True).items():
        nest = nesting(kind)
        inner = next(filter(dataclasses.is_dataclass, (nest, *typing.get_args(nest))), None)
        if inner:
            yield from keys_of(inner, f"{prefix}{name}." + "NAME." * (inner is not nest))
        else:
            yield prefix + name, kind


def nearest(key: str, schema: type, where: str = "") -> str:
    """Say which key of `schema`, a section that lies at `where`, a mistyped one may have meant."""
    here = [field.name for field in dataclasses.fields(schema)]
    known = [dotted for dotted, _ in keys_of(schema)]
    near = [dotted for dotted in known if dotted.endswith(f".{key}")] if key not in here else []
    near += difflib.get_close_matches(key, here, n=1, cutoff=0.4) + difflib.get_close_matches(key, known, n=1)
    return f"did you mean {where}{near[0]}?" if near else f"valid: {', '.join(where + name for name in here)}"


def convert(value: Any, kind: Any, where: str) -> Any:
    """Turn a value, as `read` gives it, into `kind`. where: the dotted key, for messages. Raises UserError."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)

    # bounds and paths, checked on the value of the type that they limit
    if origin is Annotated:
        plain = convert(value, args[0], where)
        if _Path in args and plain.startswith("~"):
            plain = os.path.expanduser(plain)
        if _Path in args and "\0" in plain:
            _refuse(value, kind, where)
        for bounds in (mark for mark in args if isinstance(mark, Bounds)):
            if not bounds.hold(plain):
                if not isinstance(plain, int | float):
                    raise UserError(f"config key {where} must not be empty{_at(value)}")
                finite = "a finite number " * (not bounds.infinite and not math.isfinite(plain))
                raise UserError(f"config key {where} must be {f'{finite}{bounds}'.strip()}, not {plain}{_at(value)}")
        return plain

    # one of several types: the first that takes a value of this shape
    if origin in (types.UnionType, typing.Union):
        if is_null(value) and type(None) in args:
            return None
        options = [option for option in _options(kind) if _shape(value) == _shape_of(option)]
        for option in options:
            try:
                return convert(value, option, where)
            except UserError:
                if len(options) == 1:
                    raise
        _refuse(value, kind, where)
    if origin is Literal:
        if value not in args:
            known = ", ".join(str(arg) for arg in args if arg != "")
            raise UserError(f"config key {where} is {str(value)!r}{_at(value)}; it must be one of {known}")
        return args[args.index(value)]

    # containers, by their elements
    if dataclasses.is_dataclass(kind):
        return _section(value, kind, where)
    if kind is dict and isinstance(value, dict):
        return _untyped(value, where)
    if origin is dict and isinstance(value, dict):
        return {str(k): convert(v, args[1], f"{where}.{k}") for k, v in _entries(value, args[1], where)}
    if origin in (list, tuple) and isinstance(value, list | tuple):
        inner = args if origin is tuple else [args[0]] * len(value)
        if len(inner) != len(value):
            _refuse(value, kind, where)
        return origin(convert(v, k, f"{where}[{i}]") for i, (v, k) in enumerate(zip(value, inner, strict=True)))

    # plain values, as YAML 1.2 and people write them
    if kind is str and isinstance(value, str):
        if is_null(value):
            what = f"{value} is null in YAML" if value else "there is none"
            hint = "in quotes it is text, and ~/ is the home folder"
            raise UserError(f"config key {where} must be text, and {what}{_at(value)}; {hint}")
        return str(value)
    text = value.strip() if isinstance(value, str) else None
    if kind is int and text and INT.fullmatch(text) and len(text) < 40:
        return int(text)
    if kind is float and text and FLOAT.fullmatch(text):
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    if kind is bool and text and text.lower() in BOOLS:
        return BOOLS[text.lower()]
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, kind if isinstance(kind, type) else ()) and not (kind is int and isinstance(value, bool)):
        return value
    _refuse(value, kind, where)


def base_of(kind: Any) -> Any:
    """The type under bounds: int, float, str, bool, dict, list, tuple, Literal, or a dataclass."""
    kind = typing.get_args(kind)[0] if typing.get_origin(kind) is Annotated else kind
    return typing.get_origin(kind) or kind


def nesting(kind: Any) -> Any:
    """The dataclass or dict among the types that a key may have: what a dotted key goes on into. None without one."""
    kinds = [typing.get_args(k)[0] if typing.get_origin(k) is Annotated else k for k in _options(kind)]
    return next((k for k in kinds if dataclasses.is_dataclass(k) or base_of(k) is dict), None)


def type_name(kind: Any) -> str:
    """Say what a key takes, in words: "three numbers, each at least 0"."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is Annotated:
        marks = [str(mark) for mark in args if isinstance(mark, Bounds) and args[0] in (int, float)]
        return ", ".join(filter(None, (type_name(args[0]), *marks)))
    if origin in (types.UnionType, typing.Union):
        return " or ".join([*map(type_name, _options(kind)), *["null"] * (type(None) in args)])
    if origin is Literal:
        return ("one of " if len(args) > 1 else "") + ", ".join(str(arg) or '""' for arg in args)
    if origin in (list, tuple, dict):
        one, *limits = type_name(args[-1]).split(", ", 1)
        many = PLURALS.get(one, "lists" if one.startswith("a list") else "sections" if one == "a section" else one)
        what = {
            list: f"a list of {many}",
            dict: f"{many} by name",
            tuple: f"{NUMBERS.get(len(args), len(args))} {many}",
        }
        return ", each ".join([what[origin], *limits])
    return "a section" if dataclasses.is_dataclass(kind) else NAMES.get(kind, str(kind))


def _options(kind):
    """The types of a union but None; of another type itself."""
    union = typing.get_origin(kind) in (types.UnionType, typing.Union)
    return [option for option in (typing.get_args(kind) if union else (kind,)) if option not in (type(None), None)]


def _shape(value):
    return dict if isinstance(value, dict) else list if isinstance(value, list | tuple) else str


def _shape_of(kind):
    base = base_of(kind)
    return dict if base is dict or dataclasses.is_dataclass(base) else list if base in (list, tuple) else str


def _entries(value, kind, where):
    """The entries of a dict but those that null has taken out."""
    for key, inner in value.items():
        if not isinstance(inner, Removed):
            if is_null(inner) and inner != "":
                raise UserError(f"config key {where}.{key}{_at(inner)}: null takes out an entry; none has this name")
            yield key, inner


def _untyped(value, where):
    """A value whose key has no type, as JSON has it: for the body of a request."""
    if isinstance(value, dict):
        return {str(key): _untyped(inner, f"{where}.{key}") for key, inner in value.items()}
    if isinstance(value, list):
        return [_untyped(inner, f"{where}[{i}]") for i, inner in enumerate(value)]
    if not isinstance(value, Text) or not value.plain:
        return str(value) if isinstance(value, str) else value
    if value in NULLS:
        return None
    if value.lower() in ("true", "false"):
        return BOOLS[value.lower()]
    if value.lower() in BOOLS:
        raise UserError(f"config key {where} is {value}{_at(value)}: write true or false, or put it in quotes")
    if re.fullmatch(r"-?(0|[1-9]\d*)", value):
        return int(value)
    return float(value) if re.fullmatch(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?", value) else str(value)


def _at(value):
    return f" ({value.where})" if getattr(value, "where", "") else ""


def _shown(value):
    return repr(str(value) if isinstance(value, str) else value)[:100]


def _refuse(value, kind, where):
    raise UserError(f"config key {where} must be {type_name(kind)}, not {_shown(value)}{_at(value)}")
