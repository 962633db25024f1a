"""Which examples stand before a question, and in which order; never the question itself, nor one of its group."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeVar

from wenlu.base.config import at_least
from wenlu.base.errors import UserError, did_you_mean
from wenlu.prompting.examples import Example, distinct

if TYPE_CHECKING:
    import numpy as np

    from wenlu.prompting.similarity import Embed, Vectors, Words

ALIKE = ("bm25", "nearest", "mmr")
"""Kinds that compare a question with the pool."""
T = TypeVar("T")
Chooser = Callable[[Example], tuple[Example, ...]]
"""A question → the examples that stand before it, in their order."""


@dataclass(frozen=True)
class Demonstrations:
    """How demonstrations are chosen. Raises UserError for settings that do not go together."""

    kind: Literal["none", "fixed", "random", "balanced", "bm25", "nearest", "mmr"] = "none"
    """fixed: those named by `ids`, in that order. random: the same few for every question. balanced: so too, with as
    many of each right answer as can be. bm25: those that share most words with the question. nearest: by vectors of
    their texts. mmr: like the question, but not like each other (Carbonell & Goldstein 1998). The likest stands last,
    next to the question."""
    count: int = 0
    """How many; of fixed as many as there are ids."""
    ids: tuple[str, ...] = ()
    seed: int = 0
    """Of random and balanced."""
    fields: tuple[str, ...] = ()
    """Fields that are compared; none: those that the question of the prompt shows (`Artifact.compared`). What it does
    not show may be the answer, which must not choose what stands before its question."""
    trade: float = 0.5
    """Of mmr: 1 = likeness to the question alone, 0 = difference from each other alone."""

    def __post_init__(self):
        at_least("demonstrations", self, 0, "count", "seed")
        if (self.kind == "fixed") != bool(self.ids):
            raise UserError("demonstrations.ids belong to kind = 'fixed', which needs some")
        if len(set(self.ids)) != len(self.ids):
            raise UserError("demonstrations.ids names an example twice: name it once")
        if self.kind == "fixed" and self.count not in (0, len(self.ids)):
            raise UserError(f"demonstrations.count is {self.count}, but {len(self.ids)} ids are given: leave it out")
        if self.kind not in ("none", "fixed") and self.count < 1:
            raise UserError(f"demonstrations of kind {self.kind!r} need a count of at least 1")
        if self.kind == "none" and self.count:
            raise UserError(f"{self.count} demonstrations of no kind: set kind, such as 'random' or 'bm25'")
        if not 0 <= self.trade <= 1:
            raise UserError(f"demonstrations.trade must lie in [0, 1], not {self.trade}")

    @property
    def shots(self) -> int:
        """How many stand before a question."""
        return len(self.ids) or self.count

    def over(self, pool: Sequence[Example], embed: Embed | None = None) -> Chooser:
        """Chooses among a pool; embed: vectors of texts, for nearest, and for mmr instead of words.

        The pool is read once. Raises UserError here for ids that it has not and for nothing to compare by, and when
        asked for a question where too few may stand before it.
        """
        pool = distinct(pool)
        match self.kind:
            case "none":
                return lambda question: ()
            case "fixed":
                return _fixed(self, pool)
            case "random" | "balanced":
                return _drawn(self, pool)
        if not self.fields:
            raise UserError(
                f"{self.kind} demonstrations compare by fields: name those that the question shows, never all, for one "
                "may hold the answer"
            )
        if self.kind == "nearest" and embed is None:
            raise UserError("nearest demonstrations need vectors of texts: give an embedding, or take bm25")
        return _alike(self, pool, embed)


def may_precede(one: Example, question: Example) -> bool:
    """Whether an example may stand before a question: not itself under any id, nor with more fields (such as thoughts),
    and nothing of its group."""
    same_group = bool(question.group) and one.group == question.group
    shared = {name: one.fields[name] for name in question.fields if name in one.fields}
    return one.id != question.id and not same_group and shared != dict(question.fields)


def shuffled(examples: Sequence[Example], seed: int) -> list[Example]:
    """The examples in an order that their ids and the seed decide: one left out moves no other."""
    return sorted(examples, key=lambda one: hashlib.sha256(f"{seed}\0{one.id}".encode()).digest())


def text_of(example: Example, fields: Sequence[str]) -> str:
    """What these fields of an example say. Raises UserError for one that it has not, or that is no text or number."""
    for name in fields:
        if name not in example.fields:
            near = did_you_mean(name, example.fields)
            raise UserError(f"example {example.id} has no field {name!r} to compare by.{near}")
        if not isinstance(example.fields[name], str | int | float):
            raise UserError(f"the field {name!r} of example {example.id} is no text to compare by: name another")
    return "\n".join(str(example.fields[name]) for name in fields)


def _enough(found: Sequence[Example], count: int, question: Example) -> None:
    if len(found) < count:
        raise UserError(
            f"{count} demonstrations are wanted, but only {len(found)} may stand before example {question.id} "
            "(not itself, nor one of its group): lower the count, or give a larger pool"
        )


def _fixed(plan: Demonstrations, pool: list[Example]) -> Chooser:
    known = {one.id: one for one in pool}
    if missing := next((id for id in plan.ids if id not in known), None):
        raise UserError(f"no example {missing!r} in the pool.{did_you_mean(missing, known)}")
    named = [known[id] for id in plan.ids]

    def choose(question: Example) -> tuple[Example, ...]:
        wrong = next((one for one in named if not may_precede(one, question)), None)
        if wrong is not None:
            raise UserError(
                f"the fixed demonstration {wrong.id} is example {question.id} itself, or of its group: ask other "
                "questions, or name other demonstrations"
            )
        return tuple(named)

    return choose


def _drawn(plan: Demonstrations, pool: list[Example]) -> Chooser:
    order = shuffled(pool, plan.seed)

    def choose(question: Example) -> tuple[Example, ...]:
        found = [one for one in order if may_precede(one, question)]
        if plan.kind == "balanced":
            found = _by_turns(found)
        _enough(found, plan.count, question)
        # Turns would give the right answers one fixed order; what comes last weighs most.
        return tuple(shuffled(found[: plan.count], plan.seed))

    return choose


def _by_turns(examples: Sequence[Example]) -> list[Example]:
    """One of each right answer, then another of each, and so on."""
    rounds: dict[str, int] = {}
    turns = []
    for place, one in enumerate(examples):
        turn = rounds.get(one.right, 0)
        rounds[one.right] = turn + 1
        turns.append((turn, place, one))
    return [one for _, _, one in sorted(turns, key=lambda entry: entry[:2])]


def _alike(plan: Demonstrations, pool: list[Example], embed: Embed | None) -> Chooser:
    from wenlu.prompting.similarity import Vectors, Words

    texts = [text_of(one, plan.fields) for one in pool]
    measure: Words | Vectors = Words(texts) if plan.kind == "bm25" or embed is None else Vectors(texts, embed)
    between = measure.between() if plan.kind == "mmr" else None

    def choose(question: Example) -> tuple[Example, ...]:
        likeness = measure.to(text_of(question, plan.fields))
        allowed = [place for place, one in enumerate(pool) if may_precede(one, question)]
        _enough(allowed, plan.count, question)
        if between is None:
            # Of equal ones those that stand first in the pool.
            best = sorted(allowed, key=lambda place: (-likeness[place], place))[: plan.count]
        else:
            top = max(float(max(likeness[allowed])), 1e-12)
            best = spread(likeness / top, between, allowed, plan.count, plan.trade)
        return tuple(pool[place] for place in sorted(best, key=lambda place: (likeness[place], -place)))

    return choose


def spread(likeness: np.ndarray, between: np.ndarray, allowed: Sequence[int], count: int, trade: float) -> list[int]:
    """Maximal marginal relevance: by turns the place with the most trade · likeness - (1 - trade) · likeness to one
    that is chosen (Carbonell & Goldstein 1998). likeness [pool], between [pool, pool]; of equal ones the first."""
    found: list[int] = []
    while len(found) < count:

        def worth(place: int) -> float:
            nearest = max((float(between[place, other]) for other in found), default=0.0)
            return trade * float(likeness[place]) - (1 - trade) * nearest

        left = [place for place in allowed if place not in found]
        found.append(max(left, key=lambda place: (worth(place), -place)))
    return found


def global_entropy(labels: Sequence[object]) -> float:
    """How evenly predicted labels are spread, in nats: 0 where all are one.

    Source: Lu et al. 2022, arXiv 2104.08786, GlobalE: demonstrations and an order of them under which everything gets
    one label are bad ones.
    """
    counts: dict[object, int] = {}
    for label in labels:
        counts[label] = counts.get(label, 0) + 1
    return -sum(n / len(labels) * math.log(n / len(labels)) for n in counts.values())


def most_even(candidates: Sequence[T], predict: Callable[[T], Sequence[object]]) -> T:
    """Of orders or draws of demonstrations the one with the highest global entropy; of equal ones the first.

    predict: a candidate → the labels that the model then gives to a set of probing inputs, whose right labels are not
    used.
    """
    assert candidates, "at least one to choose among"
    return max(candidates, key=lambda one: global_entropy(predict(one)))
