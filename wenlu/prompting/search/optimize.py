"""A search for a better prompt, with a verdict at its end that owes nothing to the search's luck."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from wenlu.base.config import at_least, from_dict, to_dict
from wenlu.base.errors import UserError, did_you_mean
from wenlu.base.log import JsonLines, read_rows
from wenlu.metrics.intervals import Estimate, mean
from wenlu.metrics.verdict import Verdict, verdict
from wenlu.prompting import artifact as artifacts
from wenlu.prompting.artifact import Artifact, ModelMark, Spent, SplitMark
from wenlu.prompting.asking import readings
from wenlu.prompting.calibrate import SCORES, Batch, Prior, Scoring, chosen
from wenlu.prompting.examples import Example
from wenlu.prompting.matrix import Matrix
from wenlu.prompting.search.proposals import Room, propose
from wenlu.prompting.search.select import Optimism, Selection, Told, choose, optimism
from wenlu.prompting.search.split import Looks, Parts, Shares, part
from wenlu.prompting.trial import fitted

if TYPE_CHECKING:
    from wenlu.prompting.backend import Backend
    from wenlu.prompting.similarity import Embed

TIMED = 6
"""Examples that a prompt's cost is measured on, where a search has minutes or tokens."""
MARGIN = 0.8
"""Part of a limit in minutes or tokens that the search is planned for: some prompts cost more than those measured."""


@dataclass(frozen=True)
class Search:
    """How much is tried, and what may be spent. Raises UserError for values out of range."""

    candidates: int = 24
    """Prompts, the baseline among them."""
    evaluations: int = 0
    """Most answers asked for before the test, one prompt on one example each; 0: by minutes or tokens, or else so many
    that every prompt could meet a third of the search examples."""
    minutes: float = 0.0
    """Instead: most time before the test."""
    tokens: int = 0
    """Instead: most tokens read and written before the test."""
    keep: int = 4
    """Prompts that come to the second stage."""
    scores: tuple[str, ...] = ("sum", "per_byte", "batch")
    """Ways to score choices that the last prompts are tried with, where the baseline scores choices at all."""
    delta: float = 0.0
    """The loss of accuracy that does not matter."""
    seed: int = 0
    shares: Shares = field(default_factory=Shares)

    def __post_init__(self):
        at_least("search", self, 0, "evaluations", "minutes", "tokens", "delta", "seed")
        at_least("search", self, 2, "candidates")
        at_least("search", self, 1, "keep")
        given = [name for name in ("evaluations", "minutes", "tokens") if getattr(self, name)]
        if len(given) > 1:
            raise UserError(f"a search has one limit: give {' or '.join(given)}, not both")
        wrong = next((name for name in self.scores if name not in SCORES), None)
        if wrong is not None:
            raise UserError(f"a score is one of {', '.join(SCORES)}, not {wrong!r}.{did_you_mean(wrong, SCORES)}")
        if not math.isfinite(self.minutes):
            raise UserError(f"search.minutes must be a number of minutes, not {self.minutes}")


@dataclass(frozen=True)
class Finalist:
    """A prompt of the second stage, with one way to score choices."""

    prompt: Artifact
    right: tuple[float, ...]
    """On each select example."""


@dataclass(frozen=True)
class Outcome:
    """What a search came to."""

    baseline: Artifact
    best: Artifact
    """With its verdict and what it cost; the baseline itself where nothing was better on the select examples."""
    verdict: Verdict | None
    """On the test examples; None where the baseline was chosen, so that there is nothing to judge."""
    of_baseline: Estimate | None
    of_best: Estimate | None
    """Accuracies on the test examples."""
    finalists: tuple[Finalist, ...]
    luck: Optimism
    """How much of the best accuracy on the select examples is the luck of being the best."""
    evaluations: int
    tokens: int
    look: int
    """The how-manieth look at the test part this was; 0: none."""


class Watcher(Protocol):
    """Told how a search goes."""

    def begin(self, prompts: int, evaluations: int) -> None:
        """What it will try, and how much that may cost."""

    def advance(self, cells: int) -> None:
        """So many answers more are there."""

    def best(self, name: str, accuracy: float, examples: int) -> None:
        """The best so far."""


class Optimizer:
    """One search, in a folder of its own, which goes on with it after a kill.

    >>> Optimizer(backend, baseline, examples, Search(minutes=5), Path("work")).run().verdict
    """

    def __init__(
        self,
        backend: Backend,
        baseline: Artifact,
        examples: Sequence[Example],
        search: Search,
        folder: Path,
        **more: Any,
    ):
        """more: `embed` for nearest demonstrations, `writer` (a backend that words instructions anew), `watcher`,
        `looks` (the file where looks at test parts are counted), `again` (look at a test part once more).

        Raises UserError, before anything is computed, where the examples do not suffice or the folder holds another
        search.
        """
        self.backend, self.baseline, self.examples = backend, baseline, list(examples)
        self.search, self.folder = search, folder
        self.embed: Embed | None = more.get("embed")
        self.writer: Backend | None = more.get("writer")
        self.watcher: Watcher | None = more.get("watcher")
        self.looks = Looks(more.get("looks") or folder / "looks.jsonl")
        self.again: bool = more.get("again", False)
        unscored = next((one.id for one in self.examples if one.gold is None), None)
        if baseline.scoring is not None and unscored is not None:
            raise UserError(f"the prompt scores choices, but example {unscored} has none: give choices, or no scoring")
        for example in self.examples:
            _ = example.right
        self.parts: Parts = part(self.examples, search.shares)
        self.matrix = Matrix(folder / "matrix.jsonl", backend, self.embed)
        self._rows = read_rows(folder / "search.jsonl")
        self._check_same()

    def run(self) -> Outcome:
        """Search, choose, judge; a search that was cut off goes on where it was."""
        log = JsonLines(self.folder / "search.jsonl")
        try:
            return self._run(log)
        finally:
            log.close()

    def _run(self, log: JsonLines) -> Outcome:
        spent_before = self.backend.tokens_used
        prompts, selection = self._begun(log)
        if self.watcher:
            self.watcher.begin(len(prompts), selection.budget)
        told = [Told.from_dict(row["told"]) for row in self._rows if row["event"] == "told"]

        def note(answer: Told) -> None:
            log.write(event="told", told=answer.as_dict())
            log.sync()
            self._tell(prompts, answer)

        def score(candidates: Sequence[int], numbers: Sequence[int]) -> np.ndarray:
            wanted = [self.examples[number] for number in numbers]
            return self.matrix.values([prompts[one] for one in candidates], wanted, self._advance)

        picked = choose(selection, score, told, note)
        finalists = self._finalists([prompts[number] for number in picked.finalists], picked.scores)
        rights = np.array([finalist.right for finalist in finalists])
        best = finalists[int(rights.mean(1).argmax())].prompt
        luck = optimism(rights, [example.group for example in self._of("select")], seed=self.search.seed)
        tokens = self.backend.tokens_used - spent_before
        log.write(event="chosen", name=best.name, tokens=tokens)
        return self._judged(best, tuple(finalists), luck, picked.evaluations, tokens)

    def _check_same(self) -> None:
        if not self._rows:
            return
        begun = self._rows[0]
        if begun.get("event") != "begin" or begun.get("of") != self._identity():
            raise UserError(
                f"{self.folder} holds another search (other prompt, examples, model or settings): give another --out, "
                "or go on with the same ones"
            )

    def _identity(self) -> dict[str, Any]:
        return {
            "search": to_dict(self.search),
            "baseline": self.matrix.key(self.baseline),
            "examples": SplitMark.of("all", self.examples).sha256,
        }

    def _begun(self, log: JsonLines) -> tuple[list[Artifact], Selection]:
        """The candidates and how they are chosen among, as the log has them, or made now and written there."""
        if self._rows:
            prompts = [from_dict(Artifact, one) for one in self._rows[0]["prompts"]]
            return prompts, self._selection(len(prompts), self._rows[0]["evaluations"])
        pool, room = self._of("search"), Room(self.backend, self.examples, self.embed)
        room.refuse_long(self.baseline)
        wanted, seed = self.search.candidates, self.search.seed
        proposed = propose(self.baseline, pool, wanted, seed, fits=room, writer=self.writer)
        prompts = [fitted(prompt, self.backend, pool, self.embed) for prompt in proposed]
        evaluations = self._evaluations(prompts)
        selection = self._selection(len(prompts), evaluations)
        log.write(
            event="begin", of=self._identity(), evaluations=evaluations, prompts=[to_dict(prompt) for prompt in prompts]
        )
        log.sync()
        return prompts, selection

    def _selection(self, candidates: int, evaluations: int) -> Selection:
        parts = self.parts
        return Selection(candidates, parts.search, parts.select, evaluations, self.search.keep, self.search.seed)

    def _evaluations(self, prompts: list[Artifact]) -> int:
        """The limit in answers; by minutes and tokens as a few answers cost, measured now."""
        search = self.search
        third = math.ceil(len(self.parts.search) / 3)
        last = min(len(prompts), search.keep + 1) * len(self.parts.select)
        unlimited = last + len(prompts) * third
        if search.evaluations or not (search.minutes or search.tokens):
            return search.evaluations or unlimited
        sample, room = self._of("search")[:TIMED], Room(self.backend, self.examples, self.embed)
        longest = max(prompts, key=room.needed) if hasattr(self.backend, "prompt_ids") else prompts[-1]
        began, before = time.monotonic(), self.backend.tokens_used
        self.matrix.cells([prompts[0], longest], sample)
        count = max(1, self.matrix.computed)
        each = (self.backend.tokens_used - before) / count if search.tokens else (time.monotonic() - began) / count
        limit = search.tokens if search.tokens else 60 * search.minutes
        return int(MARGIN * limit / max(each, 1e-9))

    def _finalists(self, prompts: list[Artifact], rights: np.ndarray) -> list[Finalist]:
        """Each of the last prompts as it is, then with every other way to score choices."""
        found = [Finalist(prompt, tuple(row)) for prompt, row in zip(prompts, rights.tolist(), strict=True)]
        if self.baseline.scoring is None:
            return found
        examples, own = self._of("select"), self.baseline.scoring.kind
        scores = [Scoring(name).score for name in self.search.scores if name != own]
        for prompt in prompts if scores else ():
            choose_before = prompt.demonstrations.over([shown.example for shown in prompt.pool], self.embed)
            known = readings(self.backend, scores, prompt.template, examples, choose_before)
            for score in scores:
                prior: Prior | None = score.prior(known[score.name]) if isinstance(score, Batch) else None
                choices = chosen(score.values(known[score.name], prior) if prior else score.values(known[score.name]))
                other = replace(prompt, name=f"{prompt.name}, {score.name}", scoring=Scoring.of(score), prior=prior)
                right = tuple(float(choice == one.gold) for choice, one in zip(choices, examples, strict=True))
                found.append(Finalist(other, right))
        return found

    def _judged(
        self, best: Artifact, finalists: tuple[Finalist, ...], luck: Optimism, evaluations: int, tokens: int
    ) -> Outcome:
        splits = tuple(SplitMark.of(name, self._of(name)) for name in ("search", "select", "test"))
        best = replace(best, model=ModelMark.of(self.backend), splits=splits, spent=Spent(prompt_tokens=tokens))
        baseline = fitted(self.baseline, self.backend, self._of("search"), self.embed)
        if self.matrix.key(best) == self.matrix.key(baseline):
            return Outcome(baseline, best, None, None, None, finalists, luck, evaluations, tokens, 0)
        purpose = f"{self.matrix.key(baseline)} {self.matrix.key(best)}"
        test = self._of("test")
        look = self.looks.take([example.id for example in test], purpose, again=self.again)
        before, after = self.matrix.values([baseline, best], test)
        groups = [example.group for example in test]
        found = verdict(before, after, groups, self.search.delta)
        of_best = mean(after, groups)
        ends, apart = of_best.interval, found.difference.interval
        noted = artifacts.Verdict(
            str(found), "accuracy", of_best.value, ends and ends.low, ends and ends.high, len(test),
            baseline.name, found.difference.value, apart and apart.low, apart and apart.high,
        )  # fmt: skip
        best = replace(best, verdict=noted)
        return Outcome(baseline, best, found, mean(before, groups), of_best, finalists, luck, evaluations, tokens, look)

    def _of(self, name: str) -> list[Example]:
        return [self.examples[number] for number in getattr(self.parts, name)]

    def _advance(self, cells: int) -> None:
        if self.watcher:
            self.watcher.advance(cells)

    def _tell(self, prompts: list[Artifact], answer: Told) -> None:
        if self.watcher:
            means = answer.scores.mean(1)
            place = int(means.argmax())
            self.watcher.best(prompts[answer.ask.candidates[place]].name, float(means[place]), answer.scores.shape[1])
