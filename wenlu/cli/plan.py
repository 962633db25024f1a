"""wenlu plan: what a recipe takes on GPUs, on paper."""

import dataclasses
import json as json_format
from dataclasses import asdict, dataclass
from typing import Annotated

import tyro

from wenlu.base.errors import UserError
from wenlu.base.log import counted
from wenlu.cli.flags import parse
from wenlu.cli.recipe_flags import long_flag, recipe_of
from wenlu.training.estimate import KINDS, Cluster, Estimate, Memory, estimate
from wenlu.training.gpus import GPUS
from wenlu.training.recipe import Recipe, read_recipe

DESCRIPTION = f"""What a run takes. With --gpu, a recipe on paper: parameters, work, days, and memory by kind, with
everything on each GPU and sharded as FSDP2 would; nothing is run, and no GPU is needed. With --minutes, texts on this
machine: what `wenlu train` with the same flags would choose, after some seconds of measuring.
Defaults < recipe < flags, as in wenlu train. GPUs in the table: {", ".join(GPUS)}.

example: wenlu plan recipes/gpt3-175b.toml --gpu h100 --gpus 1024 --utilisation 0.4
         wenlu plan novel.txt --minutes 10"""


ON_PAPER = ("gpus", "utilisation", "recompute", "price_per_hour")
"""Flags that say how a recipe is carried out by other machines than this one."""


@dataclass(frozen=True)
class Command(Recipe):
    sources: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RECIPE|PATH")] = ()
    """A recipe (.toml); with --minutes also texts, or a folder made by `wenlu prepare`."""
    gpu: str = ""
    """A card of the table."""
    gpus: int = 1
    """How many of them."""
    utilisation: float = 0.4
    """Of their printed speed, the part that the model's own operations come to."""
    recompute: tyro.conf.FlagCreatePairsOff[bool] = False
    """Keep only the inputs of blocks, and compute them again for the gradients."""
    price_per_hour: float = 0.0
    """Of one GPU, in any currency: the cost is said too."""
    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print one JSON object."""


def main(arguments: list[str]) -> int:
    arguments = [long_flag(argument) for argument in arguments]
    recipes = [argument for argument in arguments if argument.endswith(".toml") and not argument.startswith("-")]
    if len(recipes) > 1:
        raise UserError(f"one recipe at a time, not {len(recipes)}: {', '.join(recipes)}")
    default = Command(**vars(read_recipe(recipes[0]))) if recipes else Command()
    return run(parse(Command, "plan", arguments, DESCRIPTION, default))


def run(command: Command) -> int:
    """Carry out the command; torch is needed only where something is measured."""
    if command.training.minutes and command.gpu:
        raise UserError("--minutes plans for this machine, --gpu on paper for another: leave one of them out")
    if command.training.minutes:
        for name in ON_PAPER:
            if getattr(command, name) != getattr(Command, name):
                raise UserError(f"--{name.replace('_', '-')} is for --gpu and has no effect on --minutes: leave it out")
        return _measured(command)
    if len(command.sources) != 1 or not command.sources[0].endswith(".toml"):
        given = f", not {' '.join(command.sources)}" if command.sources else ""
        raise UserError(
            f"which recipe? give the path of one TOML file{given}: wenlu plan RECIPE.toml --gpu h100; for texts and "
            "this machine, --minutes M"
        )
    if not command.gpu:
        raise UserError(f"which GPU? give --gpu, one of {', '.join(GPUS)}; or --minutes, for this machine")
    if not 0 <= command.price_per_hour < float("inf"):
        raise UserError(f"price-per-hour must be at least 0 and finite, not {command.price_per_hour}")
    recipe = Recipe(**{field.name: getattr(command, field.name) for field in dataclasses.fields(Recipe)})
    cluster = Cluster(command.gpu, command.gpus, command.utilisation, command.recompute)
    found = estimate(recipe, cluster)
    cost = found.days * 24 * cluster.gpus * command.price_per_hour
    if command.json:
        facts = {"recipe": command.sources[0], "cluster": asdict(cluster), **asdict(found)}
        print(json_format.dumps(facts | ({"cost": cost} if command.price_per_hour else {})))
        return 0
    print(
        "\n".join([*_head(command.sources[0], found, cluster, cost), "", *_memory(found, cluster), "", *_notes(found)])
    )
    return 0


def _measured(command: Command) -> int:
    """The plan for a length of time, on this machine."""
    recipe = recipe_of(command, command.sources)
    from wenlu.training.setup import plan_for

    plan, resolved = plan_for(recipe)
    if command.json:
        print(json_format.dumps(asdict(plan)))
        return 0
    from wenlu.training.plan import lines

    print("\n".join(f"{name:<10}{value}" for name, value in lines(plan, resolved)))
    return 0


def _head(recipe: str, found: Estimate, cluster: Cluster, cost: float) -> list[str]:
    model, card = found.model, GPUS[cluster.gpu]
    shape = f"{model['family']}, {counted(model['layers'], 'layer')} of {model['dim']:,}"
    if model["family"] != "lstm":
        shape += f", {counted(model['heads'], 'head')} of {model['head_dim']}"
    speed = card.bf16 if found.dtype == "bf16" else card.f32
    epochs = f", {found.epochs:,.1f} epochs" if found.epochs else ""
    steps = counted(found.steps, "step")
    rows = [
        (f"{cluster.gpus:,} × {cluster.gpu}", f"{card.memory:g} GB and {speed:,g} TFLOP/s in {found.dtype} each"),
        ("model", f"{shape}, context {model['context']:,}"),
        ("parameters", f"{found.parameters:,}, of them {found.embedding_parameters:,} in embeddings"),
        ("vocabulary", f"{model['vocab']:,}"),
        ("tokens", f"{_short(found.tokens)}: {steps} of {found.batch:,} × {model['context']:,}{epochs}"),
        ("work", f"{found.flops:.3g} FLOPs (6 · parameters · tokens: {found.flops_6nd:.3g})"),
        ("time", f"{_time(found.days)} at {100 * cluster.utilisation:g} % utilisation"),
        ("energy", f"{found.kilowatt_hours:,.3g} kWh at the boards' full draw"),
    ]
    if found.balance < 1:
        rows[6] = ("time", f"{rows[6][1]}, {100 * (1 - found.balance):.0f} % of the GPUs' time idle")
    if cost:
        rows.append(("cost", f"{cost:,.0f}"))
    return [recipe, *(f"{name:<14}{what}" for name, what in rows)]


def _memory(found: Estimate, cluster: Cluster) -> list[str]:
    columns = [found.whole] + ([found.sharded] if found.sharded else [])
    titles = ["all on each" if found.sharded else "", f"over {cluster.gpus:,}"]
    lines = [f"{'GB on a GPU':<20}" + "".join(f"{title:>16}" for title in titles[: len(columns)])]
    for kind in (kind for kind in (*KINDS, "total") if getattr(found.whole, kind)):
        values = "".join(f"{getattr(column, kind) / 1e9:>16,.2f}" for column in columns)
        lines.append(f"{'sum' if kind == 'total' else kind:<20}{values}")
    lines.append(f"{'sequences at once':<20}" + "".join(f"{column.at_once:>16,}" for column in columns))
    return [*lines, f"{'fits':<20}" + "".join(f"{_fits(column):>16}" for column in columns)]


def _fits(memory: Memory) -> str:
    return "yes" if memory.fits else "no"


def _notes(found: Estimate) -> list[str]:
    """What the figures rest on."""
    products = "products in bf16 over " if found.dtype == "bf16" else ""
    notes = [
        f"Assumed: {products}f32 weights, gradients, state; fused attention;",
        "nothing recomputed unless --recompute. Activations and logits are counted, not",
        "measured. The sum is an upper bound: gradients come as activations go. Time is",
        "the model's operations alone over the utilised speed: no failures, no restarts.",
    ]
    if found.sharded:
        notes += [
            "Sharded as FSDP2 does: two blocks and the embedding gathered, one block's",
            "gradients whole. wenlu itself trains in one process so far.",
        ]
    return notes


def _short(count: float) -> str:
    for size, name in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:.4g} {name}"
    return f"{count:g}"


def _time(days: float) -> str:
    for unit, seconds in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if days * 86400 >= 2 * seconds:
            return f"{days * 86400 / seconds:,.3g} {unit}"
    return f"{days * 86400:.3g} seconds"
