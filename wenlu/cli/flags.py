"""Flags from a dataclass: its fields are the flags, its docstrings their help."""

from typing import Any, TypeVar

T = TypeVar("T")

INTERRUPTED = 130
"""What a command exits with that was interrupted, as shells do for Ctrl-C."""


def parse(cls: type[T], name: str, arguments: list[str], description: str, default: T | None = None) -> T:
    """The flags of command `name` as an instance of `cls`; `--help` and mistakes end the process (exit code 2)."""
    import tyro

    settings: dict[str, Any] = {} if default is None else {"default": default}
    return tyro.cli(
        cls,
        prog=f"wenlu {name}",
        description=description,
        args=arguments,
        config=(tyro.conf.FlagCreatePairsOff, tyro.conf.AvoidSubcommands),
        **settings,
    )
