"""The one exception that users see: bad input, said in one clear line, without a traceback."""


class UserError(ValueError):
    """Bad input, configuration or environment. The message says what, where, and what to do."""
