"""Packages that only some kinds of source need."""

import importlib
from types import ModuleType

from wenlu.base.errors import UserError


def extra(module: str, name: str, what: str) -> ModuleType:
    """A module of the extra `name`; where it is missing, what to install so that `what` can be read."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UserError(f'{what} cannot be read without {error.name or module}: pip install "wenlu[{name}]"') from error
