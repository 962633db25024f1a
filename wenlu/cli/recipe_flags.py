"""A recipe by flags: the short names of its fields, and the texts that are named beside it."""

import dataclasses
import itertools
from dataclasses import dataclass
from pathlib import Path

import tyro

from wenlu.base.errors import UserError
from wenlu.data.reading.hub_rows import is_no_path
from wenlu.training.recipe import Recipe, read_recipe
from wenlu.training.run_folder import RunFolder

SHORT = {
    "--model": "--model.family",
    **{f"--{name}": f"--training.{name}" for name in ("steps", "minutes", "seed", "device")},
    **{f"--{name}": f"--data.{name}" for name in ("tokenizer", "validation", "field", "max-bad", "skip", "allow")},
}


@dataclass(frozen=True)
class RunFlags:
    """Flags of a command that makes a run."""

    out: str = ""
    """The run's folder: a Transformers checkpoint, with all that is wenlu's own under wenlu/."""
    resume: tyro.conf.FlagCreatePairsOff[bool] = False
    """Go on with the run in --out; its recipe is read from there."""
    inexact: tyro.conf.FlagCreatePairsOff[bool] = False
    """Resume although machine, torch or threads differ, and the bits with them."""
    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print one JSON object at the end."""


def long_flag(argument: str, short: dict[str, str] = SHORT) -> str:
    """The whole name of a flag that has a short one."""
    flag, equals, value = argument.partition("=")
    return short.get(flag, flag) + equals + value


def default_recipe(arguments: list[str], kind: type[Recipe]) -> Recipe:
    """What flags are added to: the recipe that is named, else that of the run to resume, else the defaults.

    Raises `UserError` for one that another command is for.
    """
    out = next((value for flag, value in itertools.pairwise(arguments) if flag == "--out"), "")
    out = next((a.removeprefix("--out=") for a in arguments if a.startswith("--out=")), out)
    recipes = [a for a in arguments if a.endswith(".toml") and not a.startswith("-") and a != out]
    resumed = "--resume" in arguments and out
    recipe = read_recipe(recipes[0]) if recipes else RunFolder(out).recipe() if resumed else kind()
    if recipe.command != kind.command:
        raise UserError(f"{recipes[0] if recipes else out} is for wenlu {recipe.command}: use that command")
    return recipe


def texts_of(sources: tuple[str, ...]) -> tuple[str, ...]:
    """The sources that are no recipes; more than one recipe is refused."""
    recipes = [s for s in sources if s.endswith(".toml")]
    if len(recipes) > 1:
        raise UserError(f"one recipe at a time, not {len(recipes)}: {', '.join(recipes)}")
    return tuple(s for s in sources if s not in recipes)


def recipe_of(command: Recipe, sources: tuple[str, ...]) -> Recipe:
    """The recipe without the command's own flags, its data being the sources that were named."""
    recipe = Recipe(**{f.name: getattr(command, f.name) for f in dataclasses.fields(Recipe)})
    texts = texts_of(sources)
    if not texts:
        return recipe
    texts = tuple(s if is_no_path(s) else str(Path(s).absolute()) for s in texts)
    return dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, paths=texts))
