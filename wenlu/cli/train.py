"""wenlu train: a model from text, from prepared data or from a recipe."""

import json as json_format
import time
from dataclasses import dataclass
from typing import Annotated

import tyro

from wenlu.base.errors import UserError
from wenlu.base.log import counted
from wenlu.cli.flags import INTERRUPTED, parse
from wenlu.cli.recipe_flags import SHORT, RunFlags, default_recipe, long_flag, recipe_of
from wenlu.training.recipe import Recipe

DESCRIPTION = """A model from text files, from a folder made by `wenlu prepare`, or from a recipe (a TOML file of the
sections below). Defaults < recipe < flags. --model is short for --model.family; --steps, --minutes, --seed and
--device for --training.steps and so on; --tokenizer, --validation, --field, --max-bad, --skip and --allow for
--data.tokenizer and so on. A run stopped at any instant goes on, bit for bit, by: wenlu train --resume --out RUN

example: wenlu train novel.txt --out runs/novel --model qwen3 --steps 500 --model.dim 192"""


@dataclass(frozen=True)
class Command(RunFlags, Recipe):
    sources: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RECIPE|DATA|TEXT")] = ()
    """A recipe (.toml), a prepared folder, or text: whatever `wenlu prepare` reads (- for stdin)."""


def main(arguments: list[str]) -> int:
    began = time.monotonic()
    arguments = [long_flag(argument) for argument in arguments]
    command = parse(Command, "train", arguments, DESCRIPTION, Command(**vars(default_recipe(arguments, Recipe))), SHORT)
    if not command.out:
        raise UserError("where to? give --out RUN")
    recipe = recipe_of(command, command.sources)
    from wenlu.training.loop import train

    outcome = train(recipe, command.out, resume=command.resume, inexact=command.inexact, began=began)
    if command.json:
        print(json_format.dumps({**vars(outcome), "run": str(outcome.run)}))
    elif outcome.finished != "interrupted":
        held_out = f", held-out loss {outcome.held_out:.4f} {outcome.unit}" if outcome.held_out is not None else ""
        bits = f", {outcome.bits_per_byte:.4f} bits per byte" if outcome.bits_per_byte is not None else ""
        print(f"{outcome.run}: {counted(outcome.step, 'step')} in {outcome.seconds:,.0f} s{held_out}{bits}")
        print(f"report: {outcome.run / 'wenlu' / 'report.html'}")
        writes = outcome.objective == "next token"
        print(f'go on:  wenlu generate {outcome.run} --prompt "..."' if writes else f"go on:  wenlu eval {outcome.run}")
    return INTERRUPTED if outcome.finished == "interrupted" else 0
