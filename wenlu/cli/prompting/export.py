"""wenlu prompt export: a prompt as a plain request."""

from __future__ import annotations

import json as json_format
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Annotated

import tyro

from wenlu.base.errors import UserError
from wenlu.base.log import say
from wenlu.cli.flags import parse
from wenlu.cli.prompting.inputs import EndpointFlags, backend_of, embedder, examples_of, read_prompt
from wenlu.prompting.example_file import Keys

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
    embed_with: str = ""
    """Of a prompt whose demonstrations are chosen by vectors (nearest, mmr): the model's folder or hub id that it was
    made with."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N; of that model."""
    keys: Annotated[Keys, tyro.conf.arg(name="")] = field(default_factory=Keys)


def main(arguments: list[str]) -> int:
    command = parse(Command, "prompt export", arguments, DESCRIPTION)
    prompt = read_prompt(command.prompt)
    kind = prompt.demonstrations.kind
    if (kind in ("nearest", "mmr")) != bool(command.embed_with):
        raise UserError(
            f"{kind} demonstrations are chosen by no vectors: leave out --embed-with"
            if command.embed_with
            else f"{kind} demonstrations are chosen by a model's vectors: name the model's folder by --embed-with"
        )
    examples = examples_of(command.examples, command.keys, command.limit)
    from wenlu.prompting.export import export

    unsaid: dict[str, None] = {}
    with ExitStack() as stack:
        embed = None
        if command.embed_with:
            backend = stack.enter_context(backend_of(command.embed_with, command.device, EndpointFlags()))
            embed = embedder([prompt], backend)
            unsaid |= dict.fromkeys(prompt.differs_from(backend) if prompt.model.backend else ())
        for example in examples:
            found = export(prompt, example, command.model, embed)
            unsaid |= dict.fromkeys(found.unsaid)
            row = {"example": example.id, "path": found.path, "body": found.body}
            print(json_format.dumps(row, ensure_ascii=False))
    for line in unsaid:
        say(line)
    return 0
