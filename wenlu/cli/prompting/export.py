"""wenlu prompt export: a prompt as a plain request."""

from __future__ import annotations

import json as json_format
from dataclasses import dataclass, field
from typing import Annotated

import tyro

from wenlu.base.log import say
from wenlu.cli.flags import parse
from wenlu.cli.prompting.inputs import Columns, examples_of, read_prompt

DESCRIPTION = """A prompt as a plain request in OpenAI's form, for each of the first examples: JSON lines that any
client can send. What such a request cannot say is said.

example: wenlu prompt export work/prompt.json --examples reviews.jsonl --gold answer --model qwen3 --limit 5"""


@dataclass(frozen=True)
class Command:
    prompt: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PROMPT")]
    """A TOML file, or the prompt.json of a search."""
    examples: str = ""
    """JSON lines: fields, and the right answer."""
    model: str = "model"
    """The model's name as the endpoint knows it."""
    limit: int = 1
    """How many of the examples; 0 = all."""
    columns: Annotated[Columns, tyro.conf.arg(name="")] = field(default_factory=Columns)


def main(arguments: list[str]) -> int:
    command = parse(Command, "prompt export", arguments, DESCRIPTION)
    prompt = read_prompt(command.prompt)
    examples = examples_of(command.examples, command.columns, command.limit)
    from wenlu.prompting.export import export

    unsaid: dict[str, None] = {}
    for example in examples:
        found = export(prompt, example, command.model)
        unsaid |= dict.fromkeys(found.unsaid)
        print(json_format.dumps({"example": example.id, "path": found.path, "body": found.body}, ensure_ascii=False))
    for line in unsaid:
        say(line)
    return 0
