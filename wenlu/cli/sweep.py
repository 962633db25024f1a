"""wenlu sweep: the best of several settings, found in a given time."""

import dataclasses
import itertools
import json as json_format
import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from wenlu.base.errors import UserError
from wenlu.cli.flags import INTERRUPTED, parse
from wenlu.training.recipe import Recipe, read_recipe
from wenlu.training.sweep.folder import SweepFolder
from wenlu.training.sweep.space import SweepConfig, configurations

if TYPE_CHECKING:
    from wenlu.training.sweep.search import Outcome

DESCRIPTION = """The best of several settings, by successive halving: every configuration that the lists of --over span
is trained shortly, with the same seeds; the best of them for longer, and so on. The last are trained for as many steps
as the recipe has, or as the minutes allow. Defaults < recipe < flags, as in wenlu train. Stopped at any instant, it
goes on by: wenlu sweep --resume --out SWEEP

example: wenlu sweep recipe.toml --over optimizer.lr=0.003,0.01,0.03 --minutes 10 --out sweeps/lr"""


@dataclass(frozen=True)
class Command(Recipe):
    sources: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RECIPE")] = ()
    """A recipe (.toml)."""
    over: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """A setting and its values, section.field=a,b,c; several times for the product of the lists."""
    minutes: float = 0.0
    """Length of the whole sweep, everything counted."""
    eta: int = SweepConfig.eta
    """Of the configurations of a rung, one in eta goes on, for eta times as many steps."""
    seeds: int = SweepConfig.seeds
    """Runs of each configuration on a rung; the last rung may have more."""
    out: str = ""
    """The sweep's folder: recipe.toml and best/ (a run) of the winner, sweep.html."""
    resume: tyro.conf.FlagCreatePairsOff[bool] = False
    """Go on with the sweep in --out."""
    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print one JSON object at the end."""


def main(arguments: list[str]) -> int:
    began = time.monotonic()
    command = parse(Command, "sweep", arguments, DESCRIPTION, _default(arguments))
    if not command.out:
        raise UserError("where to? give --out SWEEP")
    if not command.resume and (len(command.sources) != 1 or not command.sources[0].endswith(".toml")):
        given = f", not {' '.join(command.sources)}" if command.sources else ""
        raise UserError(f"which recipe? give the path of one TOML file{given}: wenlu sweep RECIPE.toml --over ...")
    recipe = Recipe(**{field.name: getattr(command, field.name) for field in dataclasses.fields(Recipe)})
    over = command.over or (SweepFolder(command.out).begun()[1].over if command.resume else ())
    config = SweepConfig(over, command.minutes, command.eta, command.seeds)
    configurations(recipe, config.over)
    from wenlu.training.sweep.search import sweep

    outcome = sweep(recipe, config, command.out, resume=command.resume, began=began)
    if command.json:
        print(json_format.dumps(_facts(outcome), ensure_ascii=False))
    elif outcome.finished != "interrupted":
        _print(outcome)
    return INTERRUPTED if outcome.finished == "interrupted" else 0


def _default(arguments: list[str]) -> Command:
    """What flags are added to: the recipe that is named, and on resume what the sweep was begun with."""
    out = next((value for flag, value in itertools.pairwise(arguments) if flag == "--out"), "")
    out = next((a.removeprefix("--out=") for a in arguments if a.startswith("--out=")), out)
    recipes = [a for a in arguments if a.endswith(".toml") and not a.startswith("-") and a != out]
    if len(recipes) > 1:
        raise UserError(f"one recipe at a time, not {len(recipes)}: {', '.join(recipes)}")
    recipe, settings = read_recipe(recipes[0]) if recipes else Recipe(), {}
    if "--resume" in arguments and out:
        saved, config = SweepFolder(out).begun()
        recipe = recipe if recipes else saved
        settings = {"minutes": config.minutes, "eta": config.eta, "seeds": config.seeds}
    return Command(**vars(recipe), **settings)


def _print(outcome: "Outcome") -> None:
    from wenlu.training.sweep.report import lines

    print("\n".join(lines(outcome.standings, outcome.unit)))
    folder = SweepFolder(outcome.root)
    print(f"report: {folder.report_file}")
    if folder.best.exists():
        print(f"its best run: {folder.best}")
    else:
        print("no run of it was kept, for it came to no last rung")
    print(f"go on:  wenlu train {folder.recipe_file} --out RUN")


def _facts(outcome: "Outcome") -> dict[str, Any]:
    from wenlu.training.sweep.standings import distinguishable

    folder, placed = SweepFolder(outcome.root), outcome.standings
    rows = [
        {
            "configuration": standing.name,
            "rung": standing.rung + 1,
            "steps": standing.steps,
            "losses": {str(seed): _finite(loss) for seed, loss in standing.losses.items()},
            "mean": _finite(standing.mean),
            "difference": standing.difference,
            "interval": [standing.interval.low, standing.interval.high] if standing.interval else None,
        }
        for standing in placed
    ]
    facts = {"sweep": str(outcome.root), "finished": outcome.finished, "seconds": round(outcome.seconds, 3)}
    if not placed:
        return facts
    best = str(folder.best) if folder.best.exists() else None
    paths = {"recipe": str(folder.recipe_file), "best": best, "report": str(folder.report_file)}
    told = {"unit": outcome.unit, "winner": placed[0].name, "distinguishable": distinguishable(placed)}
    return facts | told | paths | {"configurations": rows}


def _finite(loss: float) -> float | None:
    return loss if math.isfinite(loss) else None
