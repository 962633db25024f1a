"""Flags from a dataclass: its fields are the flags, its docstrings their help."""

import contextlib
import io
import re
from collections.abc import Iterable
from typing import Any, TypeVar

from wenlu.base.errors import UserError, did_you_mean

T = TypeVar("T")

INTERRUPTED = 130
"""What a command exits with that was interrupted, as shells do for Ctrl-C."""


def parse(
    cls: type[T],
    name: str,
    arguments: list[str],
    description: str,
    default: T | None = None,
    short: Iterable[str] = (),
) -> T:
    """The flags of command `name` as an instance of `cls`; `--help` ends the process.

    `short`: names by which the command knows some of them besides. Raises UserError for what is wrong with them.
    """
    import tyro

    settings: dict[str, Any] = {"config": (tyro.conf.FlagCreatePairsOff, tyro.conf.AvoidSubcommands)}
    if default is not None:  # it may hold either, so what turns a setting on is there beside what turns it off
        settings = {"config": (tyro.conf.AvoidSubcommands,), "default": default}
    said, shown, unknown = io.StringIO(), io.StringIO(), []
    try:
        with contextlib.redirect_stderr(said):
            found, unknown = tyro.cli(
                cls, prog=f"wenlu {name}", description=description, args=arguments, return_unknown_args=True, **settings
            )
    except SystemExit as end:
        if not end.code:
            raise
    else:
        if not unknown:
            return found
    with contextlib.redirect_stdout(shown), contextlib.suppress(SystemExit):
        tyro.cli(cls, args=["--help"], **settings)
    lines = re.findall(r"^[│ ]*(--[\w.-]+(?:, --[\w.-]+)*)", shown.getvalue(), re.M)
    known = [*short, *", ".join(lines).split(", ")]
    raise UserError(f"{_mistake(said.getvalue(), unknown, arguments, known)} See wenlu {name} --help")


def _mistake(said: str, unknown: list[str], arguments: list[str], known: list[str]) -> str:
    """What is wrong, in a line or two; a flag that is not there before anything that may only follow from it."""
    flags = [argument.partition("=")[0].replace("_", "-") for argument in arguments if argument.startswith("--")]
    dashed = [argument for argument in unknown[:1] if argument.startswith("-")]
    if wrong := [flag for flag in flags if flag not in known] + dashed:
        ending = [flag for flag in known if flag.rpartition(".")[2] == wrong[0].removeprefix("--")]
        names = {flag.removeprefix("--"): flag for flag in known}  # dashes alone make no two flags alike
        nearest = did_you_mean(wrong[0].removeprefix("--"), names).replace("'", "'--", 1)
        near = f" Did you mean {' or '.join(map(repr, ending))}?" if ending else nearest
        return f"no flag {wrong[0]}.{near}"
    if unknown:
        return f"{unknown[0]!r} is one argument too many."
    # A box of tyro's: a title, what is wrong, and help; its lines are of dashes where a terminal has no others.
    title, *rest = said.splitlines()
    blocks = re.split(r"\n[│ ]*[─-]{3,}[│ ]*\n", "\n".join(rest if "╭" in title else rest[1:]))
    wrong = " ".join(blocks[0].replace("│", " ").split()).removesuffix(" Expected 1 values.")
    return wrong if wrong.endswith(".") else f"{wrong}."
