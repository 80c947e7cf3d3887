"""The error that a user can put right, and any other error in one line."""


class LitsexpError(Exception):
    """Something the user can put right. The message names what, what was found, what was expected, what to do."""


def one_line(error: BaseException) -> str:
    """``KeyError: 'no such column'``: what an unforeseen error says, whatever lines it has."""
    return " ".join(f"{type(error).__name__}: {error}".split())
