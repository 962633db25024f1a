"""Successive halving within a time: which rungs, of how many configurations, steps and seeds. Pure functions.

Source: Jamieson & Talwalkar, "Non-stochastic Best Arm Identification and Hyperparameter Optimization" (2016). Here the
runs of a rung begin anew, for the decay of the learning rate spans a whole run.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

FEWEST_STEPS = 20
"""Of the shortest run that is taken for evidence, where the recipe itself has no fewer."""
FEWEST_ON_LAST = 3
"""Seeds on the last rung, where there is more than one at all: two would leave one degree of freedom."""
MOST_ON_LAST = 8
"""Seeds on the last rung where the recipe's steps leave time."""


@dataclass(frozen=True)
class Cost:
    """What a run takes, in seconds."""

    fixed: float
    """Setting up, evaluating, saving."""
    step: float

    def of(self, steps: int) -> float:
        return self.fixed + self.step * steps


@dataclass(frozen=True)
class Rung:
    """Runs of the same length."""

    configurations: int
    steps: int
    seeds: int


@dataclass(frozen=True)
class Shape:
    """What the rungs of a sweep have in common."""

    eta: int
    seeds: int
    most_steps: int
    """The recipe's own."""

    @property
    def seeds_on_last(self) -> int:
        """None may be more than the last rung is worth: one seed stays one."""
        return self.seeds if self.seeds == 1 else max(self.seeds, FEWEST_ON_LAST)


def numbers(configurations: int, eta: int) -> list[int]:
    """How many configurations each rung has: one in eta goes on, and two at least come to the last rung."""
    found = [configurations]
    while found[-1] > 2:
        found.append(max(2, found[-1] // eta))
    return found


def ladder(configurations: int, steps: int, least: int, shape: Shape, on_last: int) -> list[Rung]:
    """The rungs that lead to a last one of `steps`: each has eta times the steps of the one before.

    The first has `least` at least; what would come to no more than that is skipped, so that its configurations are
    judged once and not twice alike. Where `steps` is hardly more than `least`, there is one rung for all.
    """
    planned = numbers(configurations, shape.eta)
    if len(planned) == 1 or steps < _worth_two(least):
        return [Rung(configurations, steps, on_last)]
    lengths = [steps // shape.eta ** (len(planned) - 1 - place) for place in range(len(planned))]
    found = [Rung(configurations, max(least, lengths[0]), shape.seeds)]
    for number, length in zip(planned[1:-1], lengths[1:-1]):
        if length > found[-1].steps:
            found.append(Rung(number, length, shape.seeds))
    return [*found, Rung(planned[-1], steps, on_last)]


def _worth_two(least: int) -> int:
    """Steps of a last rung from which a shorter one before it pays."""
    return math.ceil(1.5 * least)


def seconds(rungs: Sequence[Rung], costs: Sequence[Cost]) -> float:
    """What rungs take at most: as if the dearest configurations always went on."""
    return sum(
        rung.seeds * sum(sorted((cost.of(rung.steps) for cost in costs), reverse=True)[: rung.configurations])
        for rung in rungs
    )


def shortest(costs: Sequence[Cost], least: int, shape: Shape, on_last: int) -> list[Rung]:
    """The ladder that takes the least time."""
    steps = min(least if len(costs) <= 2 else _worth_two(least), shape.most_steps)
    return ladder(len(costs), steps, least, shape, on_last)


def plan(costs: Sequence[Cost], left: float, least: int, shape: Shape, on_last: int = 0) -> list[Rung] | None:
    """The longest rungs, up to the recipe's steps, that fit into `left` seconds; None where none do.

    `costs` are those of the configurations that are still there, `least` the steps that the first rung has at least.
    """
    on_last = on_last or shape.seeds_on_last
    if least > shape.most_steps or seconds(shortest(costs, least, shape, on_last), costs) > left:
        return None
    low, high = shortest(costs, least, shape, on_last)[-1].steps, shape.most_steps
    while low < high:
        middle = (low + high + 1) // 2
        fits = seconds(ladder(len(costs), middle, least, shape, on_last), costs) <= left
        low, high = (middle, high) if fits else (low, middle - 1)
    return ladder(len(costs), low, least, shape, on_last)


def replan(costs: Sequence[Cost], left: float, least: int, shape: Shape) -> list[Rung] | None:
    """As `plan`, with fewer seeds on the last rung where otherwise nothing would fit."""
    found = (plan(costs, left, least, shape, seeds) for seeds in range(shape.seeds_on_last, 0, -1))
    return next((rungs for rungs in found if rungs), None)
