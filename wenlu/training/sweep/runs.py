"""The runs of a sweep: one text for all, each trained by the one loop, what they take, which folders stay."""

from __future__ import annotations

import math
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np

from wenlu.base.device import machine
from wenlu.base.errors import UserError
from wenlu.base.log import background, read_rows, say
from wenlu.data.config import PrepareConfig
from wenlu.data.prepare import prepare
from wenlu.training.loop import train
from wenlu.training.recipe import Recipe
from wenlu.training.report import write_report
from wenlu.training.run_folder import RunFolder
from wenlu.training.setup import Setup, purpose_of, set_up
from wenlu.training.sweep.folder import SweepFolder
from wenlu.training.sweep.halving import Cost
from wenlu.training.sweep.log import SweepLog
from wenlu.training.sweep.space import Configuration
from wenlu.training.sweep.standings import losses
from wenlu.training.timing import work

EVALUATIONS = 2
"""In every run, one half-way and one at its end: as many in a short run as in a long one, so that both are told apart
by what they were trained and not by how often they were looked at."""
PILOT_STEPS = 12
PILOT_RATE = 1e-6
"""Pilots learn hardly anything, so that none diverges."""
MOST_PILOTS = 5
WARM_UP_STEPS = 2
"""Of a run before the first pilot, with a report: what a process does once, the import of what draws, is no run's cost,
and is over when the time is planned."""


@dataclass(frozen=True)
class _Ran:
    """How a run ended."""

    steps: int
    seconds: float
    """Spent in updates, those before a stop included."""
    wall: float
    diverged: str = ""
    resumed: bool = False


class Runs:
    """Everything of a sweep that trains or is trained on."""

    def __init__(self, recipe: Recipe, found: list[Configuration], folder: SweepFolder, log: SweepLog):
        self.recipe, self.configurations, self.folder, self.log = recipe, found, folder, log

    def prepare(self) -> None:
        """Text once for all runs; every shape of model set up once, for whatever may be refused; the data noted."""
        data = self.recipe.data
        if any((Path(path) / "data.json").is_file() for path in data.paths):
            self._text = data
        else:
            contexts = [each.recipe.model.context for each in self.configurations]
            if data.context not in (PrepareConfig.context, self.recipe.model.context):
                raise UserError("data.context is model.context when a model is trained: leave data.context out")
            if not self.folder.data.exists():
                page = "all" not in data.skip
                purpose = purpose_of(self.recipe.model)
                prepare(replace(data, context=max(contexts), purpose=purpose), self.folder.data, page=page)
            self._text = PrepareConfig(paths=(str(self.folder.data.absolute()),))
        noted = self.log.find("text")
        for representative in self._shapes()[: 1 if noted else None]:
            setup = self._checked(representative)
        data = setup.material.data
        if data.validation is None:
            raise UserError(
                f"nothing is held out in {data.folder}, and a sweep compares held-out losses: prepare it with "
                "--validation above 0"
            )
        self._vocab, here = data.tokenizer.vocab, machine(setup.device)
        if noted is None:
            unit = "nats/token" if data.description.get("lossy") else "bits/byte"
            self.log.note("text", fingerprint=data.fingerprint, unit=unit, machine=here)
            return
        if noted["fingerprint"] != data.fingerprint:
            raise UserError(
                "the data differ from those the sweep was begun with (their fingerprint changed): restore them, or "
                "begin a new sweep with another --out"
            )
        if noted["machine"] != here and self.folder.runs.exists():
            say("another machine than the one the sweep was begun on: the run at hand begins anew", "yellow")
            self._tidy()
            for path in self.folder.runs.iterdir():
                if not self._is_noted(path):
                    shutil.rmtree(path)

    def _checked(self, number: int) -> Setup:
        """Everything that `train` would set up; nothing is written."""
        recipe = self._shortened(number, PILOT_STEPS, self.recipe.training.seed)
        try:
            return set_up(recipe, RunFolder(self.folder.runs / "none"), monotonic())
        except UserError as error:
            raise UserError(f"{self.configurations[number].name}: {error}") from None

    def _shapes(self) -> list[int]:
        """The first configuration of every kind whose updates take a time of their own."""
        first: dict[tuple, int] = {}
        for number in range(len(self.configurations)):
            first.setdefault(self._kind(number), number)
        return list(first.values())

    def _kind(self, number: int) -> tuple:
        recipe = self.configurations[number].recipe
        training = recipe.training
        return (
            recipe.model,
            recipe.optimizer.name,
            training.batch,
            training.micro_batch,
            training.dtype,
            training.compile,
        )

    def _shortened(self, number: int, steps: int, seed: int) -> Recipe:
        """The recipe of a run: compared at the same moments, on all that is held out, with nothing beside it."""
        recipe = self.configurations[number].recipe
        training = replace(
            recipe.training,
            steps=steps,
            seed=seed,
            eval_every=math.ceil(steps / EVALUATIONS),
            eval_tokens=0,
            sample_tokens=0,
            patience=0,
            checkpoint_every=0,
            keep=1,
            compile="off" if recipe.training.compile == "auto" else recipe.training.compile,
        )
        return replace(recipe, data=self._text, training=training)

    def pilots(self) -> None:
        """Learn what a step costs, by a few steps of shapes from the smallest to the largest."""
        shapes = sorted(self._shapes(), key=self._work)
        places = {round(place * (len(shapes) - 1) / (MOST_PILOTS - 1)) for place in range(MOST_PILOTS)}
        for place in sorted(places):
            if self.log.find("pilot", configuration=shapes[place]):
                continue
            if not self.log.find("report"):
                self._warm_up(shapes[place])
            ran = self._pilot(shapes[place], PILOT_STEPS)
            self.log.note(
                "pilot", configuration=shapes[place], steps=ran.steps, seconds=ran.seconds, wall=round(ran.wall, 3)
            )
        shutil.rmtree(self.folder.runs / "pilot", ignore_errors=True)

    def _warm_up(self, number: int) -> None:
        """A run that is not counted; how long a page of plots takes is noted, for two of them come at the end."""
        self._pilot(number, WARM_UP_STEPS, report=True)
        began = monotonic()
        write_report(RunFolder(self.folder.runs / "pilot"))
        self.log.note("report", seconds=round(monotonic() - began, 3))

    def _pilot(self, number: int, steps: int, report: bool = False) -> _Ran:
        recipe = self._shortened(number, steps, self.recipe.training.seed)
        recipe = replace(recipe, optimizer=replace(recipe.optimizer, lr=PILOT_RATE, muon_lr=PILOT_RATE))
        path = self.folder.runs / "pilot"
        shutil.rmtree(path, ignore_errors=True)
        ran = self._trained(number, recipe, path, report)
        if ran.diverged:
            raise UserError(f"{self.configurations[number].name}: {ran.diverged}")
        return ran

    def _work(self, number: int) -> float:
        recipe = self.configurations[number].recipe
        return work(replace(recipe, model=replace(recipe.model, vocab=self._vocab)))

    def _trained(self, number: int, recipe: Recipe, path: Path, report: bool = False) -> _Ran:
        """Train one run, or go on with it."""
        resumed, began = RunFolder(path).exists(), monotonic()
        try:
            with background():
                outcome = train(recipe, path, resume=resumed, report=report)
        except UserError as error:
            events = read_rows(RunFolder(path).events_file)
            if not events or events[-1]["event"] != "nonfinite":
                raise UserError(f"{self.configurations[number].name}: {error}") from None
            return _Ran(events[-1]["step"], 0.0, monotonic() - began, str(error), resumed)
        if outcome.finished == "interrupted":
            raise KeyboardInterrupt
        wall = monotonic() - began
        if resumed:
            self.log.went_on(outcome.seconds - wall)
        return _Ran(outcome.step, outcome.seconds, wall, resumed=resumed)

    def costs(self, alive: list[int]) -> list[Cost]:
        """What runs take by now: as the longest of the same kind took, else by their work from those that were run."""
        runs: dict[tuple, list[dict[str, Any]]] = {}
        for row in self.log.rows:
            if row["event"] in ("pilot", "result") and not row.get("diverged"):
                runs.setdefault(self._kind(row["configuration"]), []).append(row)
        known = {kind: _cost(rows) for kind, rows in runs.items()}
        of = {self._kind(number): self._work(number) for number in range(len(self.configurations))}
        kinds = sorted(known, key=lambda kind: of[kind])
        axis = [of[kind] for kind in kinds]

        def estimated(kind: tuple) -> Cost:
            values = [(known[k].fixed, known[k].step) for k in kinds]
            return Cost(*(float(np.interp(of[kind], axis, column)) for column in zip(*values)))

        return [known[kind] if kind in known else estimated(kind) for kind in map(self._kind, alive)]

    def run(self, rung: dict[str, Any], configuration: int, seed: int) -> dict[str, Any]:
        """Train a configuration on a rung; the row that notes its result."""
        path = self._path(rung["rung"], configuration, seed)
        ran = self._trained(configuration, self._shortened(configuration, rung["steps"], seed), path)
        row = self.log.note(
            "result",
            rung=rung["rung"],
            configuration=configuration,
            seed=seed,
            loss=None if ran.diverged else self._loss(path),
            steps=ran.steps,
            seconds=ran.seconds,
            wall=round(ran.wall, 3),
            resumed=ran.resumed,
            diverged=ran.diverged,
        )
        self._tidy()
        return row

    def _loss(self, path: Path) -> float:
        """The best held-out loss of a run."""
        held_out = [row for row in read_rows(RunFolder(path).metrics_file) if "held_out" in row]
        best = min(held_out, key=lambda row: row["held_out"])
        return best["bits_per_byte"] if self.log.unit == "bits/byte" else best["held_out"]

    def _path(self, rung: int, configuration: int, seed: int) -> Path:
        return self.folder.runs / f"{rung}-{configuration}-{seed}"

    def _is_noted(self, path: Path) -> bool:
        results = (row for row in self.log.rows if row["event"] == "result")
        return any(path == self._path(row["rung"], row["configuration"], row["seed"]) for row in results)

    def best_runs(self) -> dict[int, Path]:
        """Configuration → the folder of its best run on the last rung."""
        last = next((row["rung"] for row in self.log.rows if row["event"] == "rung" and not row["then"]), None)
        found = {}
        for number, own in losses(self.log.rows).get(last, {}).items():
            found[number] = self._path(last, number, min(own, key=own.__getitem__))
        return found

    def _tidy(self) -> None:
        """Remove runs whose results are noted, but for the best of each configuration on the last rung."""
        kept = set(self.best_runs().values())
        for path in self.folder.runs.iterdir() if self.folder.runs.exists() else ():
            if self._is_noted(path) and path not in kept:
                shutil.rmtree(path, ignore_errors=True)


def _cost(rows: list[dict[str, Any]]) -> Cost:
    """What runs of one kind take, by the longest of them; what is no update took least in the quickest."""
    fixed = min((row["wall"] - row["seconds"] for row in rows if not row.get("resumed")), default=0.0)
    longest = [row for row in rows if row["steps"] == max(each["steps"] for each in rows)]
    steps = [max(row["seconds"], 0.0 if row.get("resumed") else row["wall"] - fixed) / row["steps"] for row in longest]
    return Cost(fixed, float(np.mean(steps)))
