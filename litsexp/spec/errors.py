"""The error that a user can put right."""


class LitsexpError(Exception):
    """Something the user can put right. The message names what, what was found, what was expected, what to do."""
