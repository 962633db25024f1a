"""Which configuration of a sweep stands where: means over seeds, and paired differences from the best."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from wenlu.metrics.intervals import Interval
from wenlu.metrics.paired import paired_interval

Losses = dict[int, dict[int, dict[int, float]]]
"""Rung → configuration → seed → held-out loss; infinite where the run diverged."""


@dataclass(frozen=True)
class Standing:
    """What became of one configuration."""

    configuration: int
    name: str
    rung: int
    """The last one it was on, the first being 0."""
    steps: int
    losses: dict[int, float]
    """Seed → loss on that rung; infinite where the run diverged."""
    difference: float | None
    """Mean of its loss less the best configuration's on the same rung and seeds; None where a run diverged."""
    interval: Interval | None
    """Of that difference, 95 %, on the last rung; None for the best itself, and where seeds are too few."""

    @property
    def mean(self) -> float:
        """Infinite where a run diverged."""
        return float(np.mean(list(self.losses.values())))


def losses(rows: Iterable[dict[str, Any]]) -> Losses:
    """The losses that the rows of a sweep hold."""
    found: Losses = {}
    for row in rows:
        if row["event"] == "result":
            loss = math.inf if row["loss"] is None else row["loss"]
            found.setdefault(row["rung"], {}).setdefault(row["configuration"], {})[row["seed"]] = loss
    return found


def whole(table: dict[int, dict[int, float]], configurations: Iterable[int]) -> dict[int, dict[int, float]]:
    """The losses of the seeds with which every one of the configurations was run: pairs, or nothing."""
    seeds = [set(table.get(configuration, {})) for configuration in configurations]
    shared = sorted(set.intersection(*seeds)) if seeds else []
    if not shared:
        return {}
    return {configuration: {seed: table[configuration][seed] for seed in shared} for configuration in configurations}


def ranked(table: dict[int, dict[int, float]]) -> list[int]:
    """Configurations, best mean first; those of which a run diverged come last, the oftener the later."""

    def place(configuration: int) -> tuple[int, float, int]:
        found = list(table[configuration].values())
        finite = [loss for loss in found if math.isfinite(loss)]
        return len(found) - len(finite), float(np.mean(finite)) if finite else math.inf, configuration

    return sorted(table, key=place)


def is_sound(own: dict[int, float]) -> bool:
    """Whether no run of a configuration on a rung diverged."""
    return all(map(math.isfinite, own.values()))


def standings(rows: list[dict[str, Any]], names: list[str]) -> list[Standing]:
    """All configurations, best first: by the last rung that they were on, then by their means on it; those of which a
    run diverged there come last, on whatever rung."""
    found = losses(rows)
    tables, steps = {}, {}
    for row in (row for row in rows if row["event"] == "rung"):
        table = whole(found.get(row["rung"], {}), row["configurations"])
        if table:
            tables[row["rung"]], steps[row["rung"]] = table, row["steps"]
    if not tables:
        return []
    came_to = {configuration: rung for rung in sorted(tables) for configuration in tables[rung]}
    order = [c for rung in sorted(tables, reverse=True) for c in ranked(tables[rung]) if came_to[c] == rung]
    order.sort(key=lambda configuration: not is_sound(tables[came_to[configuration]][configuration]))
    best = order[0]
    placed: list[Standing] = []
    for configuration in order:
        rung = came_to[configuration]
        own, versus = tables[rung][configuration], tables[rung].get(best, {})
        told = _versus(own, versus, rung == came_to[best] and configuration != best)
        placed.append(Standing(configuration, names[configuration], rung, steps[rung], own, *told))
    return placed


def _versus(own: dict[int, float], best: dict[int, float], compared: bool) -> tuple[float | None, Interval | None]:
    if not is_sound(own) or not is_sound(best):
        return None, None
    first, second = list(own.values()), list(best.values())
    difference = float(np.mean(np.subtract(first, second)))
    return difference, paired_interval(first, second) if compared else None


def distinguishable(placed: list[Standing]) -> bool | None:
    """Whether the best is told from the runner-up of its rung by 95 %; None where too few seeds say nothing.

    A runner-up that diverged, or that came less far, is told.
    """
    if len(placed) < 2 or placed[1].rung < placed[0].rung or not math.isfinite(placed[1].mean):
        return True
    interval = placed[1].interval
    return None if interval is None else interval.low > 0 or interval.high < 0
