"""Mistakes a user can mend: the rule, the value, the way out."""

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(Exception):
    """A mistake of the user. Commands print it in one or two lines, without a traceback, and exit with code 2."""


def did_you_mean(name: str, options: Iterable[str]) -> str:
    """` Did you mean 'x'?` for the option nearest to `name`, or an empty string where none is near."""
    near = get_close_matches(name, list(options), n=1, cutoff=0.6)
    return f" Did you mean {near[0]!r}?" if near else ""
