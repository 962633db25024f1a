"""A recipe by flags: the short names of its fields, and the texts that are named beside it."""

import dataclasses
from pathlib import Path

from wenlu.base.errors import UserError
from wenlu.data.reading.hub_rows import is_no_path
from wenlu.training.recipe import Recipe

SHORT = {
    "--model": "--model.family",
    **{f"--{name}": f"--training.{name}" for name in ("steps", "minutes", "seed", "device")},
    **{f"--{name}": f"--data.{name}" for name in ("tokenizer", "validation", "field", "max-bad", "skip", "allow")},
}


def long_flag(argument: str) -> str:
    """The whole name of a flag that has a short one."""
    flag, equals, value = argument.partition("=")
    return SHORT.get(flag, flag) + equals + value


def recipe_of(command: Recipe, sources: tuple[str, ...]) -> Recipe:
    """The recipe without the command's own flags, its data being the sources that were named."""
    recipe = Recipe(**{f.name: getattr(command, f.name) for f in dataclasses.fields(Recipe)})
    recipes = [s for s in sources if s.endswith(".toml")]
    texts = tuple(s for s in sources if s not in recipes)
    if len(recipes) > 1:
        raise UserError(f"one recipe at a time, not {len(recipes)}: {', '.join(recipes)}")
    if not texts:
        return recipe
    texts = tuple(s if is_no_path(s) else str(Path(s).absolute()) for s in texts)
    return dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, paths=texts))
