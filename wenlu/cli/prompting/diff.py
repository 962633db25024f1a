"""wenlu prompt diff: in what two prompts differ."""

from __future__ import annotations

import json as json_format
from dataclasses import dataclass
from typing import Annotated

import tyro

from wenlu.cli.flags import parse
from wenlu.cli.prompting.inputs import read_prompt

DESCRIPTION = """In what two prompts differ, setting by setting.

example: wenlu prompt diff plain.toml work/prompt.json"""


@dataclass(frozen=True)
class Command:
    first: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="FIRST")]
    """A TOML file, or the prompt.json of a search."""
    second: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SECOND")]
    json: bool = False
    """Print one JSON object."""


def main(arguments: list[str]) -> int:
    command = parse(Command, "prompt diff", arguments, DESCRIPTION)
    from wenlu.prompting.artifact import diff

    lines = diff(read_prompt(command.first), read_prompt(command.second))
    if command.json:
        print(json_format.dumps({"first": command.first, "second": command.second, "lines": lines}, ensure_ascii=False))
    else:
        print("\n".join(lines) if lines else "the prompts are the same")
    return 0
