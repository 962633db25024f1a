"""Choosing among many prompts by sequential halving, and how much of the winner's score is its luck.

The baseline is candidate 0. Many candidates are tried on the search examples, by halves; the last few and the baseline
are told apart by the select examples, which had no part in that. What the choice is worth says the test part, by
`wenlu.metrics.verdict`, and nothing here ever asks for an example of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from wenlu.base.config import at_least
from wenlu.base.errors import UserError
from wenlu.metrics.intervals import by_group, group_numbers

Score = Callable[[tuple[int, ...], tuple[int, ...]], Any]
"""Numbers of candidates and of examples → their scores, [candidates, examples]; more is better."""


class TooSmall(UserError):
    """A budget that is less than the least that a choice takes."""

    def __init__(self, message: str, least: int):
        super().__init__(message)
        self.least = least


@dataclass(frozen=True)
class Selection:
    """What is to be chosen among, by what, and how much that may cost."""

    candidates: int
    """Prompts, the baseline (number 0) among them."""
    search: tuple[int, ...]
    """Numbers of the examples for the halving."""
    select: tuple[int, ...]
    """Numbers of the examples that the last few are told apart by."""
    budget: int
    """Scores of one prompt on one example, of both stages and `beside` together, at most."""
    keep: int = 4
    """Prompts that come to the second stage, to which the baseline comes in any case."""
    seed: int = 0
    """Of the order of the search examples."""
    beside: int = 0
    """Evaluations that are spent beside the two stages."""
    rungs: int | None = None
    """Of the halving, where it was ended before its last."""

    def __post_init__(self):
        at_least("selection", self, 1, "candidates", "keep")
        at_least("selection", self, 0, "beside")
        for name in ("search", "select"):
            numbers = getattr(self, name)
            if not numbers or len(set(numbers)) < len(numbers):
                raise UserError(f"selection.{name} wants examples, each once, not {len(numbers)} with repeats or none")
        both = len(set(self.search) & set(self.select))
        if both:
            raise UserError(f"{both} examples are in both search and select: part them (search.split.part)")
        if self.budget < self.least:
            raise TooSmall(
                f"a budget of {self.budget:,} evaluations is too small for {self.candidates} candidates and "
                f"{len(self.select)} select examples: give {self.least:,} at least, or fewer of them",
                self.least,
            )

    @property
    def reserved(self) -> int:
        """Evaluations that the second stage takes at most, and those beside."""
        return min(self.candidates, self.keep + 1) * len(self.select) + self.beside

    @property
    def least(self) -> int:
        """The smallest budget: one search example for each candidate, and the second stage."""
        return self.reserved + self._spent(0)

    @property
    def planned(self) -> int:
        """Evaluations that the schedule takes, at most: less than the budget where all search examples are met."""
        return self.reserved + _cost(self.schedule())

    def order(self) -> list[int]:
        """The search examples in the order in which all candidates meet them."""
        shuffled = np.random.default_rng(self.seed).permutation(len(self.search))
        return [self.search[place] for place in shuffled]

    def schedule(self) -> list[tuple[int, int]]:
        """For each rung of the halving: candidates, and search examples that each has met by its end.

        Rungs have equal shares of the evaluations (Karnin, Koren & Somekh, "Almost Optimal Exploration in Multi-Armed
        Bandits", ICML 2013), as large as the budget allows; unlike there, examples of earlier rungs count on, and where
        they are all used up, those that are left over go to the earlier rungs.
        """
        low, high = 0, self.candidates * len(self.search)
        while low < high:
            share = (low + high + 1) // 2
            fits = self._spent(share) <= self.budget - self.reserved
            low, high = (share, high) if fits else (low, share - 1)
        return self._rungs(low)[: self.rungs]

    def _rungs(self, share: int) -> list[tuple[int, int]]:
        """The schedule where each rung may spend a share, and the first one example each at least.

        A rung that meets no further examples is left out.
        """
        number, rungs, seen = self.candidates, [], 0
        while number > self.keep:
            further = min(len(self.search) - seen, max(share // number, 0 if rungs else 1))
            seen += further
            rungs += [(number, seen)] if further else []
            number = max(self.keep, math.ceil(number / 2))
        return rungs

    def _spent(self, share: int) -> int:
        return _cost(self._rungs(share))


def _cost(rungs: Sequence[tuple[int, int]]) -> int:
    return sum(number * (now - before) for (number, now), (_, before) in zip(rungs, [(0, 0), *rungs]))


@dataclass(frozen=True)
class Ask:
    """Scores that are wanted next."""

    stage: Literal["search", "select"]
    candidates: tuple[int, ...]
    examples: tuple[int, ...]


@dataclass(frozen=True)
class Told:
    """An `Ask` and its answer."""

    ask: Ask
    scores: np.ndarray
    """[candidates, examples], finite but for examples that failed, which are NaN for every candidate."""

    def __post_init__(self):
        scores = np.asarray(self.scores, np.float64)
        object.__setattr__(self, "scores", scores)
        wanted = (len(self.ask.candidates), len(self.ask.examples))
        if scores.shape != wanted:
            raise UserError(f"scores of {wanted[0]} candidates × {wanted[1]} examples were wanted, not {scores.shape}")
        whole = scores[:, ~np.isnan(scores).all(0)]
        bad = [number for number, row in zip(self.ask.candidates, whole) if not np.isfinite(row).all()]
        if bad:
            raise UserError(
                f"candidate {bad[0]} has a score that is not finite: leave it out, or mend how it is scored"
            )

    def as_dict(self) -> dict[str, Any]:
        """As a log holds it."""
        asked = {"candidates": list(self.ask.candidates), "examples": list(self.ask.examples)}
        return {
            "stage": self.ask.stage,
            **asked,
            "scores": [[None if math.isnan(value) else value for value in row] for row in self.scores.tolist()],
        }

    @classmethod
    def from_dict(cls, row: dict[str, Any]) -> Told:
        """What `as_dict` gave."""
        return cls(Ask(row["stage"], tuple(row["candidates"]), tuple(row["examples"])), np.array(row["scores"], float))


@dataclass(frozen=True)
class Chosen:
    """What a selection came to."""

    number: int
    """The candidate with the highest mean on the select examples; the lower number of equals, so the baseline first."""
    finalists: tuple[int, ...]
    """The candidates of the second stage, the baseline among them, in rising order."""
    scores: np.ndarray
    """[finalists, select examples]."""
    evaluations: int
    """Scores asked for."""


def next_ask(selection: Selection, told: Sequence[Told]) -> Ask | None:
    """What to score next, given all answers so far; None at the end. A function of its arguments alone.

    Raises UserError where `told` answers other questions than this selection asks.
    """
    left, order, schedule, seen = tuple(range(selection.candidates)), selection.order(), selection.schedule(), 0
    scores: dict[int, list[float]] = {number: [] for number in left}
    for place, answer in enumerate([*told, None]):
        if place > len(schedule):
            if answer is not None:
                raise UserError("the log holds answers beyond the end of this selection: begin a new one")
            return None
        if place < len(schedule):
            ask = Ask("search", left, tuple(order[seen : schedule[place][1]]))
        else:
            ask = Ask("select", tuple(sorted({0, *left})), selection.select)
        if answer is None:
            return ask
        if answer.ask != ask:
            raise UserError(
                f"row {place + 1} of the log answers another selection (other candidates, examples, budget or seed): "
                "go on with the same settings, or begin a new one"
            )
        if place < len(schedule):
            seen = schedule[place][1]
            for number, row in zip(left, answer.scores.tolist()):
                scores[number] += row
            going_on = schedule[place + 1][0] if place + 1 < len(schedule) else selection.keep
            left = best([float(np.nanmean(scores[number])) for number in left], left, going_on)
    raise AssertionError("every pass returns")


def best(means: Sequence[float], numbers: Sequence[int], count: int) -> tuple[int, ...]:
    """The `count` numbers of the highest means, in rising order; of equal means the lower numbers."""
    ranked = sorted(zip(means, numbers), key=lambda pair: (-pair[0], pair[1]))
    return tuple(sorted(number for _, number in ranked[:count]))


def choose(
    selection: Selection,
    score: Score,
    told: Sequence[Told] = (),
    note: Callable[[Told], None] | None = None,
    enough: Callable[[Ask, Sequence[Told]], bool] | None = None,
) -> Chosen:
    """Ask for scores until a candidate is chosen.

    told: answers of an earlier process, from its log; they are not asked for again. note: is given every new answer
    before anything follows from it, to write it down. enough: whether the halving ends before a rung, given all answers
    so far; the select examples come next then.
    """
    answers = list(told)
    while (ask := next_ask(selection, answers)) is not None:
        if ask.stage == "search" and answers and enough and enough(ask, answers):
            selection = replace(selection, rungs=len(answers))
            continue
        answer = Told(ask, score(ask.candidates, ask.examples))
        if note:
            note(answer)
        answers.append(answer)
    last = answers[-1]
    winner = best(np.nanmean(last.scores, 1).tolist(), last.ask.candidates, 1)[0]
    return Chosen(winner, last.ask.candidates, last.scores, sum(answer.scores.size for answer in answers))


@dataclass(frozen=True)
class Optimism:
    """How much of the best mean among several is the luck of being the best."""

    apparent: float
    """Mean of the best on the examples that it is the best on."""
    out_of_bag: float
    """Mean of those that are the best on resamples, on the examples that these left out."""
    chosen: tuple[float, ...]
    """For each candidate the part of the resamples in which it is the best: how settled the choice is."""

    @property
    def optimism(self) -> float:
        """What to take off the apparent mean. Rather too much than too little: a resample tells less than its whole."""
        return self.apparent - self.out_of_bag


def optimism(
    scores: np.ndarray, groups: Sequence[Hashable] | None = None, *, resamples: int = 1000, seed: int = 0
) -> Optimism:
    """The out-of-bag estimate for a choice of the highest mean among scores [candidates, examples].

    Examples, or whole groups of them, are drawn with replacement; the best on what was drawn is scored on what was not,
    about a third. That score owes nothing to the choice, so where candidates are equal it is right on average; where
    one is better, choosing on a resample finds it less often, and the estimate is a little low. Sources: Efron &
    Tibshirani, "Improvements on Cross-Validation: The .632+ Bootstrap Method", JASA 92 (1997), for scoring out of the
    bag; Cawley & Talbot, JMLR 11 (2010), for what selection does to the score it selects by.

    Raises UserError for fewer than two examples or groups.
    """
    found = np.asarray(scores, np.float64)
    assert found.ndim == 2 and found.size and np.isfinite(found).all()
    numbers = group_numbers(groups, found.shape[1])
    sums, sizes = by_group(found.T, numbers), np.bincount(numbers)
    count = len(sums)
    if count < 2:
        raise UserError("out of one example or group nothing can be left out: give more of them")
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=resamples)
    left_out = drawn == 0
    drawn, left_out = drawn[left_out.any(1)], left_out[left_out.any(1)]
    winners = ((drawn @ sums) / (drawn @ sizes)[:, None]).argmax(1)
    elsewhere = (left_out @ sums)[np.arange(len(winners)), winners] / (left_out @ sizes)
    shares = np.bincount(winners, minlength=len(found)) / len(winners)
    return Optimism(float(found.mean(1).max()), float(elsewhere.mean()), tuple(shares.tolist()))
