"""The one exception that users see: bad input, said in one clear line, without a traceback."""

import json
from collections.abc import Callable
from pathlib import Path


class UserError(ValueError):
    """Bad input, configuration or environment. The message says what, where, and what to do."""


def one_line(error: object, limit: int = 300) -> str:
    """Return what an error, or whatever a library says, reads as in one line of at most `limit` characters."""
    return " ".join(str(error).split())[:limit]


def read_json(path: Path, remedy: str, read: Callable = lambda found: found) -> object:
    """Return what `read` makes of the JSON in a file. Raises UserError if it is none, or lacks what is read of it.

    remedy: what to do then, such as "delete it and run again".
    """
    try:
        return read(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise UserError(f"{path} is damaged; {remedy}") from None
