"""Rows, from whatever holds them: a file, a pattern of files, a folder, a dataset of the hub.

    for where, row in iter_rows("problems.jsonl.gz"): ...
    for where, row in iter_rows("someone/their-crv:pairs:train"): ...

JSON Lines, a JSON array and CSV (plain, .gz, .zst), Parquet, Arrow, a folder that `save_to_disk` wrote, a folder of
shards. Where no such file is: owner/name, owner/name:split or owner/name:configuration:split of the hub. `where` names
a row in messages: file:line, or file:row where there are no lines.
"""

import csv
import glob
import gzip
import io
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from errors import UserError, one_line

Rows = Iterator[tuple[str, dict]]

HUB_NAME = re.compile(r"([\w-]+)/([\w.-]+)(?:(?::([^:/]+))?:([^:/]+))?")  # owner/name, :configuration, :split
SUFFIXES = (".jsonl", ".json", ".csv", ".parquet", ".arrow", ".gz", ".zst")  # of files: mistyped, they are no hub names

BATCH = 256  # rows of a Parquet file in memory at once: chains are long


def iter_rows(path: str | Path) -> Rows:
    """Yield (where, row) from a file, a pattern of files, a folder or a dataset of the hub. Raises UserError, one line
    with the place, for what is missing, damaged, or no object."""
    path = Path(path)
    files = [path] if path.exists() else sorted(map(Path, glob.glob(str(path), recursive=True)))
    # where nothing lies here, a name that no folder of this machine begins may be one of the hub
    if not files:
        named = HUB_NAME.fullmatch(str(path))
        if not named or named[2].lower().endswith(SUFFIXES) or Path(named[1]).exists():
            raise UserError(f"no such file: {path}")
        try:
            yield from hub_rows(f"{named[1]}/{named[2]}", named[3], named[4] or "train")
        except UserError as error:
            raise UserError(f"no such file: {path}, and {error}") from None
    for file in files:
        if not (file.is_file() or file.is_dir()):
            raise UserError(f"{file} is no file or folder")
        if file.is_dir() and not _is_saved(file):
            for inner in _files_of(file):
                yield from iter_rows(inner)
            continue
        columnar = file.is_dir() or file.suffix.lower() in (".parquet", ".arrow") or _starts(file, b"PAR1")
        yield from (_dataset_rows if columnar else _text_rows)(file)


def hub_rows(repo: str, subset: str | None, split: str, streaming: bool = False) -> Rows:
    """Yield (where, row) of a dataset on the hub. Raises UserError if it cannot be had: a wrong name, subset or split,
    no network, no access, a loading script."""

    names = {"name": subset, "split": split, "streaming": streaming}
    yield from _library_rows(f"no {repo} from the hub", repo, lambda: _datasets().load_dataset(repo, **names))


def _dataset_rows(path):
    """Yield the rows of a columnar file, or of what `save_to_disk` wrote."""

    def load():
        if path.is_file() and path.suffix.lower() != ".arrow":
            from pyarrow.parquet import ParquetFile

            return (row for batch in ParquetFile(path).iter_batches(BATCH) for row in batch.to_pylist())
        datasets = _datasets()
        if path.is_file():
            return datasets.Dataset.from_file(str(path))
        found = datasets.load_from_disk(str(path))
        return _only_split(found, path) if isinstance(found, dict) else found

    yield from _library_rows(f"cannot read {path}", path, load)


def _is_saved(folder):
    return any((folder / name).exists() for name in ("state.json", "dataset_dict.json"))


def _files_of(folder):
    """List the files of a folder that is laid out as a repository of the hub. They are found as the library finds them,
    but not read by it: its readers of JSON and CSV guess types ("007" becomes 7.0, "2024-01-01" a time)."""
    try:
        found = _datasets().load_dataset_builder(str(folder)).config.data_files
        return _only_split(found, folder)
    except Exception as error:
        raise _failure(f"cannot read {folder}", error) from None


def _only_split(found, path):
    if len(found) > 1:
        splits = ", ".join(map(str, found))
        raise UserError(f"it has the splits {splits}; name the files of one, such as {path}/{next(iter(found))}*")
    return next(iter(found.values()))


def _datasets():
    import datasets  # here, so that --help answers at once

    datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = False  # else it calls home for local files too, and waits for that
    return datasets


def _library_rows(failure, name, load):
    """Yield the rows of what `load` returns. Whatever the library, the network or a foreign file raises is the user's
    to know, in one line."""
    try:
        for number, row in enumerate(load(), 1):
            yield f"{name}:{number}", _plain(row)
    except Exception as error:
        raise _failure(failure, error) from None


def _failure(what, error):
    cause = one_line(error.__cause__ or error).rstrip(". ")
    return UserError(f"{what} ({cause or type(error).__name__})")


def _plain(value, inner=False):
    """Return what JSON can hold. Columnar files fill the keys that a nested object lacks with null: those go again."""
    if isinstance(value, dict):
        return {key: _plain(item, True) for key, item in value.items() if not (inner and item is None)}
    if isinstance(value, list | tuple):
        return [_plain(item, True) for item in value]
    if isinstance(value, bytes):  # text, as some writers of Parquet store it
        return value.decode(errors="backslashreplace")
    return value if isinstance(value, str | int | float | None) else str(value)


def _text_rows(file):
    """Yield the rows of CSV, JSON Lines or a JSON array, unpacked."""
    number = 0
    try:
        with _unpacked(file) as opened:
            if ".csv" in (suffix.lower() for suffix in file.suffixes[-2:]):
                yield from _csv_rows(file, opened)
                return
            # an array is one text with many rows, else each line is a row
            array = opened.peek(256).removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"["
            for number, text in enumerate([opened.read()] if array else opened, 1):
                if not text.strip():
                    continue
                found = parsed(text, file if array else f"{file}:{number}")
                for place, row in enumerate(found if array else [found], number):
                    yield f"{file}:{place}", an_object(row, f"{file}:{place}")
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{file}:{number + 1}: cannot be read: {error}") from None


def an_object(row: object, where: str) -> dict:
    """Return what `parsed` found. Raises UserError unless it is a JSON object."""
    if not isinstance(row, dict):
        raise UserError(f"{where}: a record must be a JSON object, not {type(row).__name__}")
    return row


def parsed(text: bytes, where: str) -> object:
    """Parse JSON. Raises UserError, one line with the place."""
    try:
        return json.loads(text.decode("utf-8-sig"), object_pairs_hook=_object)
    except UnicodeDecodeError as error:
        raise UserError(f"{where}: not UTF-8 ({error.reason} at byte {error.start})") from None
    except (ValueError, RecursionError) as error:  # no JSON, or a number of thousands of digits, or thousands of [
        ends = getattr(error, "pos", -1) >= len(text.decode("utf-8-sig").rstrip())  # printed over several lines, or cut
        hint = "; it ends too early: write one object a line, or an array of objects" * ends
        raise UserError(f"{where}: not valid JSON: {str(error).replace('line 1 column', 'column')}{hint}") from None


def _object(pairs):
    """Make an object. Raises ValueError for a key that stands there twice: one of its values would be lost."""
    if len(found := dict(pairs)) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} stands twice in an object")
    return found


def _csv_rows(file, opened):
    csv.field_size_limit(1 << 30)  # its own limit is below what a long chain takes
    reader, line = csv.DictReader(io.TextIOWrapper(opened, "utf-8-sig", newline=""), strict=True), 2
    try:
        names = reader.fieldnames or []
        if twice := next((name for name in names if name and names.count(name) > 1), None):
            raise UserError(f"{file}:1: two columns are called {twice!r}; rename one")
        for row in reader:
            if None in row:
                raise UserError(f"{file}:{line}: more fields than the {len(reader.fieldnames)} of the first line")
            yield f"{file}:{line}", row
            line = reader.line_num + 1
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"{file}:{line}: not valid CSV in UTF-8 ({type(error).__name__})") from None


def _unpacked(file) -> BinaryIO:
    if _starts(file, b"\x1f\x8b"):
        return gzip.open(file)
    if _starts(file, b"\x28\xb5\x2f\xfd"):
        import pyarrow

        return io.BufferedReader(pyarrow.input_stream(str(file), compression="zstd"))
    return file.open("rb")


def _starts(file, magic):
    try:
        with file.open("rb") as opened:
            return opened.read(len(magic)) == magic
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror}") from None
