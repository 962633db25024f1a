"""wenlu finetune: a trained model tuned on examples."""

import dataclasses
import json as json_format
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from wenlu.base.errors import UserError
from wenlu.base.log import counted
from wenlu.cli.flags import INTERRUPTED, parse
from wenlu.cli.recipe_flags import RunFlags, default_recipe, long_flag, texts_of
from wenlu.data.config import PrepareConfig
from wenlu.data.rows.config import located
from wenlu.models.config import ModelConfig
from wenlu.training.recipe import TuningRecipe

if TYPE_CHECKING:
    from wenlu.training.loop import Outcome

DESCRIPTION = """A model's folder (a run's, Transformers', or a hub id) tuned on files of examples. Tasks: chat
(conversations), pairs (text to text), classify (a label for a text), tag (entities), span (answers within a text).
--task, --validation, --held-out, --fields, --context and --prefix are short for --rows.task and so on, --epochs for
--tuning.epochs; --minutes, --steps, --seed and --device for --training.minutes and so on. What is kept is the best by
held-out loss. A run stopped at any instant goes on, bit for bit, by: wenlu finetune --resume --out RUN

example: wenlu finetune runs/book talks.jsonl --out runs/chat --task chat --minutes 10"""

SHORT = {
    **{f"--{name}": f"--rows.{name}" for name in ("task", "validation", "fields", "context", "prefix")},
    "--held-out": "--rows.validation-paths",
    "--epochs": "--tuning.epochs",
    **{f"--{name}": f"--training.{name}" for name in ("steps", "minutes", "seed", "device")},
}


@dataclass(frozen=True)
class Command(RunFlags, TuningRecipe):
    sources: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="MODEL|EXAMPLES|RECIPE")] = ()
    """The model's folder or hub id, then files of examples; or a recipe (.toml), and what it does not name."""
    data: tyro.conf.Suppress[PrepareConfig] = field(default_factory=PrepareConfig)
    model: tyro.conf.Suppress[ModelConfig] = field(default_factory=ModelConfig)
    show: int = 0
    """Print so many rows before training: ids, text, and what of it is learned."""


def main(arguments: list[str]) -> int:
    began = time.monotonic()
    arguments = [long_flag(argument, SHORT) for argument in arguments]
    default = default_recipe(arguments, TuningRecipe)
    command = parse(Command, "finetune", arguments, DESCRIPTION, Command(**vars(default)), SHORT)
    if not command.out:
        raise UserError("where to? give --out RUN")
    recipe = _recipe(command, arguments)
    from wenlu.training.finetune import finetune

    outcome, scores = finetune(
        recipe, command.out, resume=command.resume, inexact=command.inexact, began=began, show=command.show
    )
    if command.json:
        found = {name: score.as_dict() for name, score in scores.items()}
        print(json_format.dumps({**vars(outcome), "run": str(outcome.run), "scores": found}))
    elif outcome.finished != "interrupted":
        print(f"{outcome.run}: {counted(outcome.step, 'step')} in {outcome.seconds:,.0f} s")
        for name, score in scores.items():
            between = f"  ({score.interval.low:.4f} to {score.interval.high:.4f})" if score.interval else ""
            unit = f" {outcome.unit}" if name == "loss" else ""
            how = f"  {score.signature}" if score.signature else ""
            print(f"held out, {name.replace('_', ' ')}: {score.value:.4f}{unit}{between}{how}")
        print(f"report: {outcome.run / 'wenlu' / 'report.html'}")
        print(f"go on:  {_next(outcome)}")
    return INTERRUPTED if outcome.finished == "interrupted" else 0


def _next(outcome: "Outcome") -> str:
    """What the run is for."""
    if outcome.objective == "the assistant's tokens":
        return f"wenlu chat {outcome.run}"
    if outcome.objective == "text to text":
        return f'wenlu generate {outcome.run} --prompt "..."'
    return f"wenlu predict {outcome.run} --prompts FILE"


def _recipe(command: Command, arguments: list[str]) -> TuningRecipe:
    """The recipe without the command's own flags: the model and the examples are those that were named."""
    recipe = TuningRecipe(**{f.name: getattr(command, f.name) for f in dataclasses.fields(TuningRecipe)})
    named = list(texts_of(command.sources))
    if named and (command.resume or not recipe.tuning.model):
        model = named.pop(0)
        model = str(Path(model).absolute()) if Path(model).exists() else model
        recipe = dataclasses.replace(recipe, tuning=dataclasses.replace(recipe.tuning, model=model))
    rows = recipe.rows
    if named:
        rows = dataclasses.replace(rows, paths=tuple(located(name, Path()) for name in named))
    held_out = tuple(located(name, Path()) for name in rows.validation_paths)
    rows = dataclasses.replace(rows, validation_paths=held_out)
    flags = [argument.partition("=")[0] for argument in arguments]
    if "--training.steps" in flags and "--tuning.epochs" not in flags:
        recipe = dataclasses.replace(recipe, tuning=dataclasses.replace(recipe.tuning, epochs=0.0))
    return dataclasses.replace(recipe, rows=rows)
