"""wenlu prompt render: a prompt as the model reads it."""

from __future__ import annotations

import json as json_format
from dataclasses import dataclass, field
from typing import Annotated

import tyro

from wenlu.base.errors import UserError
from wenlu.cli.flags import parse
from wenlu.cli.prompting.inputs import EndpointFlags, backend_of, embedder, examples_of, read_prompt
from wenlu.prompting.example_file import Keys

DESCRIPTION = """A prompt as the model reads it, for the first examples of a file: the text, with what the chat template
writes around it, and the ids.

example: wenlu prompt render runs/chat plain.toml --examples reviews.jsonl --gold answer --show 2"""


@dataclass(frozen=True)
class Command:
    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """A run's folder, any Transformers folder of a known family, or a hub id."""
    prompt: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PROMPT")]
    """A TOML file, or the prompt.json of a search."""
    examples: str = ""
    """JSON lines: fields, and the right answer."""
    show: int = 1
    """How many of the examples."""
    keys: Annotated[Keys, tyro.conf.arg(name="")] = field(default_factory=Keys)
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    json: bool = False
    """Print one JSON object."""


def main(arguments: list[str]) -> int:
    command = parse(Command, "prompt render", arguments, DESCRIPTION)
    if command.show < 1:
        raise UserError(f"show must be at least 1, not {command.show}")
    prompt = read_prompt(command.prompt)
    examples = examples_of(command.examples, command.keys, command.show)
    from wenlu.prompting.rendering import render

    with backend_of(command.model, command.device, EndpointFlags()) as backend:
        embed = embedder([prompt], backend)
        found = [(example, render(prompt.prompt(example, embed), backend)) for example in examples]
    if command.json:
        rows = [{"example": example.id, "text": one.text, "ids": list(one.ids)} for example, one in found]
        print(json_format.dumps({"prompt": prompt.name, "rendered": rows}, ensure_ascii=False))
        return 0
    for example, one in found:
        print(f"--- example {example.id}, right: {example.right}\n{one.text}\n--- {len(one.ids)} ids: {list(one.ids)}")
    return 0
