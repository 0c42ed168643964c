"""The one exception that users see: bad input, said in one clear line, without a traceback."""


class UserError(ValueError):
    """Bad input, configuration or environment. The message says what, where, and what to do."""


def one_line(error: object, limit: int = 300) -> str:
    """Return what an error, or whatever a library says, reads as in one line of at most `limit` characters."""
    return " ".join(str(error).split())[:limit]
