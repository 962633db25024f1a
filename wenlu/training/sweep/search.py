"""A sweep: the best of many configurations, by successive halving on paired seeds, within a time, resumable.

Every decision is a row of SWEEP/sweep.jsonl, written before it acts; whatever goes on is a function of these rows, so
that a sweep stopped at any instant goes on as it would have.
"""

from __future__ import annotations

import math
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

from wenlu.base.config import to_dict, to_toml
from wenlu.base.errors import UserError
from wenlu.base.files import atomic_write
from wenlu.base.log import counted, say
from wenlu.training.recipe import Recipe
from wenlu.training.report import write_report
from wenlu.training.run_folder import RunFolder
from wenlu.training.sweep.folder import SweepFolder
from wenlu.training.sweep.halving import FEWEST_STEPS, MOST_ON_LAST, Cost, Shape, plan, replan, seconds, shortest
from wenlu.training.sweep.log import SweepLog
from wenlu.training.sweep.report import time_text, write_page
from wenlu.training.sweep.runs import Runs
from wenlu.training.sweep.space import Configuration, SweepConfig, configurations, refuse_another
from wenlu.training.sweep.standings import Standing, distinguishable, is_sound, losses, ranked, standings, whole

AIM = 0.94
"""Part of the time by which a sweep should have ended: an end too late is worse than one too early."""
FULL = 0.98
"""Part of the time up to which one more seed is begun on the last rung."""
REPORTS = 4
"""What is written at the end takes as long as so many reports of a short run: two pages, with more in them."""
REPORT_SECONDS = 1.5
"""At least, for that."""


@dataclass(frozen=True)
class Outcome:
    """How a call of `sweep` ended."""

    root: Path
    finished: str
    """rungs, or interrupted."""
    seconds: float
    unit: str
    """bits/byte; nats/token where the tokenizer loses text."""
    standings: list[Standing]
    """Best first; empty where it was interrupted."""


def sweep(
    recipe: Recipe | None,
    config: SweepConfig | None,
    out: Path | str,
    *,
    resume: bool = False,
    began: float | None = None,
) -> Outcome:
    """Search the space that `config` spans over `recipe`, or go on with the search in `out` (both may then be None).

    The time counts from `began`, a moment of `time.monotonic()`; from this call on by default.
    """
    began = monotonic() if began is None else began
    folder = SweepFolder(out)
    if resume:
        saved = folder.begun()
        refuse_another(saved, (recipe or saved[0], config or saved[1]))
        recipe, config = saved
    elif recipe is None or config is None:
        raise UserError("nothing to sweep: give a recipe and --over, or --resume with the --out of a sweep")
    found = configurations(recipe, config.over)
    if not resume:
        folder.create()
    with folder.locked(), _terminable():
        search = Search(recipe, config, found, folder, began)
        try:
            return search.run()
        except KeyboardInterrupt:
            return search.interrupted()
        except UserError:
            if not search.log.find("rung"):
                folder.take_back()
            raise
        finally:
            search.log.close()


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM ends what goes on outside of a run as Ctrl-C does; a run ends its step and saves."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number, frame):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class Search:
    """One sweep in one process."""

    def __init__(
        self, recipe: Recipe, config: SweepConfig, found: list[Configuration], folder: SweepFolder, began: float
    ):
        self.recipe, self.config, self.configurations, self.folder = recipe, config, found, folder
        self.shape = Shape(config.eta, config.seeds, recipe.training.steps)
        self.log = SweepLog(folder.log_file, began)
        self.runs = Runs(recipe, found, folder, self.log)
        if not self.log.rows:
            self.log.note("begin", recipe=to_dict(recipe), sweep=to_dict(config))

    def run(self) -> Outcome:
        """All of it, but for what the rows hold already."""
        if self.log.find("end"):
            say(f"{self.folder.root} is finished; nothing to resume")
            return self._finish()
        self.runs.prepare()
        self.runs.pilots()
        alive, number, steps = list(range(len(self.configurations))), 0, 0
        while alive and (rung := self._rung(number, alive, steps)):
            self._climb(rung)
            alive, number, steps = self._survivors(rung), number + 1, rung["steps"]
        return self._finish()

    def interrupted(self) -> Outcome:
        """Stopped by Ctrl-C or SIGTERM."""
        self.log.note("interrupted")
        say(f"stopped, everything saved. Go on with:\n  wenlu sweep --resume --out {self.folder.root}")
        return Outcome(self.folder.root, "interrupted", self.log.clock(), self.log.unit, [])

    @property
    def _ending(self) -> float:
        """Seconds that are kept for what is written at the end."""
        report = self.log.find("report")
        return max(REPORT_SECONDS, REPORTS * report["seconds"]) if report else REPORT_SECONDS

    def _rung(self, number: int, alive: list[int], before: int) -> dict[str, Any] | None:
        """The plan of the next rung, by what earlier ones took; None where the time, or the steps, are over."""
        if self.log.find("over"):
            return None
        rung = self.log.find("rung", rung=number)
        if rung is None:
            costs, least = self.runs.costs(alive), before + 1 if before else min(FEWEST_STEPS, self.shape.most_steps)
            left = AIM * 60 * self.config.minutes - self.log.clock() - self._ending
            rungs = replan(costs, left, least, self.shape) if before else plan(costs, left, least, self.shape)
            if rungs is None and not before:
                self._refuse_time(costs, least)
            if rungs is None:
                self.log.note("over", rung=number)
                return None
            first, *later = rungs
            rung = self.log.note(
                "rung",
                rung=number,
                rungs=number + len(rungs),
                configurations=alive,
                steps=first.steps,
                seeds=first.seeds,
                then=later[0].configurations if later else 0,
                later_seconds=round(seconds(later, costs), 1),
            )
        self._say_rung(rung)
        return rung

    def _refuse_time(self, costs: list[Cost], least: int) -> None:
        rungs = shortest(costs, least, self.shape, self.shape.seeds_on_last)
        needed = (self.log.clock() + seconds(rungs, costs) + self._ending) / AIM / 60
        runs = f"{counted(len(costs), 'configuration')} of {counted(self.shape.seeds, 'seed')}"
        raise UserError(
            f"{runs} and {counted(rungs[0].steps, 'step')} at least want about {math.ceil(10 * needed) / 10:g} minutes "
            "here: give them by --minutes, or fewer values, or --seeds 1"
        )

    def _climb(self, rung: dict[str, Any]) -> None:
        """All runs of a rung: every configuration with a seed before the next seed, so that a cut leaves pairs."""
        number, block = rung["rung"], 0
        while block < rung["seeds"] or self._one_more(rung, block):
            seed = self.recipe.training.seed + block
            left = [
                configuration
                for configuration in rung["configurations"]
                if not self.log.find("result", rung=number, configuration=configuration, seed=seed)
            ]
            while left:
                if self.log.find("cut", rung=number) or self._is_late(rung, seed, left if block else left[:1]):
                    return
                self._say_result(rung, self.runs.run(rung, left.pop(0), seed))
            block += 1

    def _is_late(self, rung: dict[str, Any], seed: int, wanted: list[int]) -> bool:
        """Whether these runs would not end within the time; noted, then. Half a seed would be of no use to a pair."""
        taken = sum(cost.of(rung["steps"]) for cost in self.runs.costs(wanted))
        if self.log.clock() + taken + self._ending <= 60 * self.config.minutes:
            return False
        self.log.note("cut", rung=rung["rung"], seed=seed)
        say(f"  the time is nearly over: seeds from {seed} on are left out of this rung", "yellow")
        return True

    def _one_more(self, rung: dict[str, Any], block: int) -> bool:
        """Whether the last rung has time for one seed more."""
        number = rung["rung"]
        if rung["then"] or self.shape.seeds == 1 or block >= max(MOST_ON_LAST, self.shape.seeds):
            return False
        if self.log.find("more", rung=number, seed=block):
            return True
        wanted = sum(cost.of(rung["steps"]) for cost in self.runs.costs(rung["configurations"]))
        if (
            self.log.find("cut", rung=number)
            or self.log.clock() + wanted + self._ending > FULL * 60 * self.config.minutes
        ):
            return False
        self.log.note("more", rung=number, seed=block)
        return True

    def _survivors(self, rung: dict[str, Any]) -> list[int]:
        """The best configurations of a rung, as many as the next one was planned for; none that diverged."""
        table = whole(losses(self.log.rows).get(rung["rung"], {}), rung["configurations"])
        sound = [number for number in ranked(table) if is_sound(table[number])]
        if table and not sound and rung["rung"]:
            say("  every configuration of this rung diverged: the best that did not wins", "yellow")
        return sound[: rung["then"]]

    def _finish(self) -> Outcome:
        """The winner, its recipe, its run, the report."""
        names = [each.name for each in self.configurations]
        placed = standings(self.log.rows, names)
        if not placed:
            raise UserError(
                "the time was over before every configuration had been run once: begin a new sweep with more --minutes"
            )
        best, folder = placed[0], self.folder
        if not is_sound(best.losses):
            raise UserError(
                "every configuration diverged: begin a new sweep over lower --over optimizer.lr or optimizer.muon_lr"
            )
        row = self.log.find("end") or self.log.note(
            "end", configuration=best.configuration, told=distinguishable(placed)
        )
        winner = self.configurations[best.configuration].recipe
        atomic_write(folder.recipe_file, f"# The best of a sweep over: {best.name}\n\n{to_toml(winner)}")
        run = self.runs.best_runs().get(best.configuration)
        if run and run.exists() and not folder.best.exists():
            os.replace(run, folder.best)
        if folder.best.exists():
            write_report(RunFolder(folder.best))
        shutil.rmtree(folder.runs, ignore_errors=True)
        write_page(folder.report_file, self.log.rows, placed, self.log.unit)
        return Outcome(folder.root, "rungs", row["clock"], self.log.unit, placed)

    def _say_rung(self, rung: dict[str, Any]) -> None:
        left = 60 * self.config.minutes - self.log.clock()
        say(
            f"rung {rung['rung'] + 1} of {rung['rungs']}: {counted(len(rung['configurations']), 'configuration')}, "
            f"{counted(rung['seeds'], 'seed')}, {counted(rung['steps'], 'step')} each; "
            f"{time_text(left)} left of the time"
        )

    def _say_result(self, rung: dict[str, Any], row: dict[str, Any]) -> None:
        """One line for a run: what it came to, and what is still to come by what is known."""
        done = sum(r["event"] == "result" and r["rung"] == rung["rung"] for r in self.log.rows)
        costs = self.runs.costs(rung["configurations"])
        runs = max(0, rung["seeds"] * len(costs) - done)
        left = runs * sum(cost.of(rung["steps"]) for cost in costs) / len(costs) + rung["later_seconds"]
        name = self.configurations[row["configuration"]].name
        came = "diverged" if row["diverged"] else f"{row['loss']:.4f} {self.log.unit}"
        say(f"  {name} · seed {row['seed']}: {came} · about {time_text(left)} left")
