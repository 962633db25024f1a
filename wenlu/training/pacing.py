"""A run of a given length in time: how many updates fit is planned anew at marks of the time, noted before it acts."""

from __future__ import annotations

import math
import time

from wenlu.base.log import JsonLines
from wenlu.training.checkpoint import Progress

MARKS = (0.25, 0.5, 0.75, 0.875, 0.9375)
"""Parts of the time at which the rest is planned anew, at the pace since the last of them."""
EARLY = 0.5
"""Part of the steps still planned after which that is done too, where all would be over before the next mark: a
machine may be much faster than it was when it was measured."""
AIM = 0.97
"""Part of the time by which a run should have ended: an end too late is worse than one too early."""
REPORT_SECONDS = 2.0
"""What writing the report may take, matplotlib's import in it."""


class Pacing:
    """The turns of one run: updates done, and updates in all from then on.

    They stand in the events and, up to its step, in every checkpoint. A resumed run takes the turns that the events
    already hold at the same steps as before, whatever its clock says, and decides by the clock only beyond the step
    that the run had reached: so it ends with the same bits as if it had never been stopped.
    """

    def __init__(self, minutes: float, steps: int, began: float, progress: Progress, events: JsonLines):
        self._seconds, self._planned, self._progress, self._events = 60 * minutes, steps, progress, events
        self._began, self._before = began, progress.clock
        self._recorded: list[list[int]] = []
        self._reached = 0
        self._since, self._due, self._look = (progress.step, self.clock()), math.inf, progress.step
        self.ending = 0.0
        """Seconds that the last evaluation and checkpoint took: they will be due once more at the end."""

    def replay(self, recorded: list[list[int]], reached: int) -> None:
        """Turns that were noted before the run was stopped, and the step that it had reached.

        A checkpoint is written before the turn of its own step: that one is taken here, no step comes back to it.
        """
        self._recorded, self._reached = recorded, reached
        turns = self._progress.turns
        turns += [turn for turn in recorded[len(turns) :] if turn[0] <= self._progress.step]

    def clock(self) -> float:
        """Seconds of this run's life, those before it was stopped included."""
        return self._before + time.monotonic() - self._began

    def left(self) -> float | None:
        """Seconds until a run of a given length in time should have ended, by its clock; None for one of steps."""
        return max(0.0, AIM * self._seconds - self.clock()) if self._seconds else None

    @property
    def steps(self) -> int:
        """Updates in all, as planned by now."""
        turns = self._progress.turns
        return turns[-1][1] if turns else self._planned

    @property
    def place(self) -> float:
        """How far the schedule has come, as a number of `steps`: at a turn it goes on from where it is."""
        done, begun, steps = 0.0, 0, self._planned
        for at, then in self._progress.turns:
            done += (1 - done) * (at - begun) / (steps - begun)
            begun, steps = at, then
        if not begun:
            return self._progress.step
        return steps * (done + (1 - done) * (self._progress.step - begun) / (steps - begun))

    def start(self) -> None:
        """The first update is about to begin: what came before counts, but not as the pace of updates."""
        self._look_ahead(self.clock())

    def _look_ahead(self, now: float) -> None:
        """From now on the pace counts; the next turn is due at the next mark."""
        step = self._progress.step
        self._since = (step, now)
        self._due = min((mark * self._seconds for mark in MARKS if mark * self._seconds > now), default=math.inf)
        self._look = step + max(1, math.floor(EARLY * (self.steps - step)))

    def after_step(self) -> bool:
        """Take a turn where one is due; whether one was taken."""
        progress = self._progress
        number = len(progress.turns)
        if number < len(self._recorded):
            if self._recorded[number][0] == progress.step:
                progress.turns.append(self._recorded[number])
                return True
            return False
        now, (step, then) = self.clock(), self._since
        if step == progress.step or not self._reached < progress.step < self.steps:
            return False
        pace = (now - then) / (progress.step - step)
        over = progress.step >= self._look and now + (self.steps - progress.step) * pace < self._due < math.inf
        if now < self._due and not over:
            return False
        left = AIM * self._seconds - now - self.ending - REPORT_SECONDS
        turn = [progress.step, progress.step + max(1, math.floor(left / pace))]
        self._events.write(event="turn", step=turn[0], steps=turn[1], pace=round(pace, 6))
        self._events.sync()
        progress.turns.append(turn)
        self._look_ahead(now)
        return True
