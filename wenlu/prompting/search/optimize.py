"""A search for a better prompt, with a verdict at its end that owes nothing to the search's luck."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from wenlu.base.config import at_least, from_dict, to_dict
from wenlu.base.errors import UserError, did_you_mean
from wenlu.base.log import JsonLines, read_rows, say
from wenlu.metrics.intervals import Estimate, mean
from wenlu.metrics.verdict import Verdict, verdict
from wenlu.prompting import artifact as artifacts
from wenlu.prompting.artifact import Artifact, ModelMark, SplitMark
from wenlu.prompting.asking import readings
from wenlu.prompting.backend import Spent
from wenlu.prompting.calibrate import SCORES, Ask, Batch, ChoiceScore, Prior, Scoring, chosen
from wenlu.prompting.examples import Example
from wenlu.prompting.matrix import Matrix
from wenlu.prompting.search.proposals import Room, propose
from wenlu.prompting.search.select import Optimism, Selection, Told, choose, optimism
from wenlu.prompting.search.split import Looks, Parts, Shares, part
from wenlu.prompting.trial import fitted, try_on

if TYPE_CHECKING:
    from wenlu.prompting.backend import Backend
    from wenlu.prompting.similarity import Embed

TIMED = 6
"""Examples that the longest prompt's cost is measured on, where a search has minutes or tokens."""
MARGIN = 0.8
"""Part of a limit in minutes or tokens that the search is planned for: some examples cost more than those measured."""
LEARNED = 16
"""Search examples that the mean of a prompt is learned from, where the baseline is scored by batch calibration."""


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
    """Answers asked for before the test."""
    tokens: int
    """Read and written before the test, whatever process did."""
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
        `looks` (where looks at test parts are counted; else in the folder alone), `again` (look at a test part once
        more), `clock` (seconds).

        Raises UserError, before anything is computed, where the examples do not suffice or the folder holds another
        search.
        """
        self.backend, self.baseline, self.examples = backend, baseline, list(examples)
        self.search, self.folder = search, folder
        self.embed: Embed | None = more.get("embed")
        self.writer: Backend | None = more.get("writer")
        self.watcher: Watcher | None = more.get("watcher")
        self.looks: Looks = more.get("looks") or Looks(folder / "looks.jsonl")
        self.again: bool = more.get("again", False)
        self._clock: Callable[[], float] = more.get("clock", time.monotonic)
        unscored = next((one.id for one in self.examples if one.gold is None), None)
        if baseline.scoring is not None and unscored is not None:
            raise UserError(f"the prompt scores choices, but example {unscored} has none: give choices, or no scoring")
        for example in self.examples:
            _ = example.right
        self.parts: Parts = part(self.examples, search.shares)
        self.matrix = Matrix(folder / "matrix.jsonl", backend, self.embed)
        self._rows = read_rows(folder / "search.jsonl")
        self._check_same()
        self._finals = {row["number"]: row["found"] for row in self._rows if row["event"] == "final"}
        self._spent = sum((Spent(**row["spent"]) for row in self._rows if "spent" in row), Spent())
        """Beside the matrix."""

    def run(self) -> Outcome:
        """Search, choose, judge; a search that was cut off goes on where it was."""
        log = JsonLines(self.folder / "search.jsonl")
        try:
            return self._run(log)
        finally:
            log.close()

    def _run(self, log: JsonLines) -> Outcome:
        prompts, selection = self._begun(log)
        if self.watcher:
            self.watcher.begin(len(prompts), selection.budget)
        prompts = self._fitted(prompts, log)
        told = [Told.from_dict(row["told"]) for row in self._rows if row["event"] == "told"]

        def note(answer: Told) -> None:
            log.write(event="told", told=answer.as_dict())
            log.sync()
            self._tell(prompts, answer)

        def score(candidates: Sequence[int], numbers: Sequence[int]) -> np.ndarray:
            if numbers == selection.select and self._scores:
                return np.array([self._final(one, prompts[one], log)[0].right for one in candidates])
            wanted = [self.examples[number] for number in numbers]
            return self.matrix.values([prompts[one] for one in candidates], wanted, self._advance)

        picked = choose(selection, score, told, note)
        several = [
            self._final(number, prompts[number], log, row) for number, row in zip(picked.finalists, picked.scores)
        ]
        finalists = [found[0] for found in several] + [one for found in several for one in found[1:]]
        rights = np.array([finalist.right for finalist in finalists])
        best = finalists[int(rights.mean(1).argmax())].prompt
        luck = optimism(rights, [example.group for example in self._of("select")], seed=self.search.seed)
        chosen = next((row for row in self._rows if row["event"] == "chosen"), None)
        if chosen is None:
            chosen = {"name": best.name, "before_test": to_dict(self._spent + self.matrix.spent)}
            log.write(event="chosen", **chosen)
            log.sync()
        best = replace(best, spent=Spent(**chosen["before_test"]))
        evaluations = picked.evaluations + self._beside(len(prompts), len(picked.finalists))
        return self._judged(prompts[0], best, tuple(finalists), luck, evaluations)

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
        before, since = self.backend.spent, self._clock()
        pool, room = self._of("search"), Room(self.backend, self.examples, self.embed)
        room.refuse_long(self.baseline)
        wanted, seed = self.search.candidates, self.search.seed
        prompts = propose(self.baseline, pool, wanted, seed, fits=room, writer=self.writer)
        evaluations = self._evaluations(prompts, room, since)
        selection = self._selection(len(prompts), evaluations)
        spent = self._note_spent(before)
        log.write(
            event="begin", of=self._identity(), evaluations=evaluations, spent=spent,
            prompts=[to_dict(prompt) for prompt in prompts],
        )  # fmt: skip
        log.sync()
        return prompts, selection

    def _note_spent(self, before: Spent) -> dict[str, Any]:
        """What was spent since, for the log."""
        spent = self.backend.spent.since(before)
        self._spent += spent
        return to_dict(spent)

    def _selection(self, candidates: int, evaluations: int) -> Selection:
        parts, search = self.parts, self.search
        beside = self._beside(candidates, min(candidates, search.keep + 1))
        return Selection(candidates, parts.search, parts.select, evaluations, search.keep, search.seed, beside)

    def _beside(self, candidates: int, finalists: int) -> int:
        """Answers asked for beside the choosing: to measure, to learn means, and for other ways to score choices."""
        search, scoring = self.search, self.baseline.scoring
        measured = min(TIMED, len(self.parts.search)) if search.minutes or search.tokens else 0
        learning = scoring is not None and scoring.kind == "batch"
        learned = (candidates - (self.baseline.prior is not None)) * min(LEARNED, len(self.parts.search)) * learning
        return measured + learned + finalists * len(self.parts.select) * self._further

    @cached_property
    def _scores(self) -> list[ChoiceScore]:
        """The baseline's way to score choices, then the others that its finalists are tried with."""
        if self.baseline.scoring is None:
            return []
        names = [name for name in self.search.scores if name != self.baseline.scoring.kind]
        if "batch" in names and len({self.baseline.template.continuations(one) for one in self.examples}) > 1:
            say("batch is left out of the scores: it needs the same choices everywhere")
            names.remove("batch")
        return [self.baseline.scoring.score, *(Scoring(name).score for name in dict.fromkeys(names))]

    @cached_property
    def _further(self) -> int:
        """What the other ways to score ask of an example beyond the baseline's own, in answers of that one."""
        template, most = self.baseline.template, 0
        for example in self._of("select") if self._scores else ():
            asks: list[Ask] = []
            for score in self._scores:
                asks += [ask for ask in score.asks(template, example) if ask not in asks]
            own = len(self._scores[0].asks(template, example))
            most = max(most, math.ceil((len(asks) - own) / own))
        return most

    def _evaluations(self, prompts: list[Artifact], room: Room, since: float) -> int:
        """The limit in answers; by minutes and tokens as answers to the longest prompt cost, measured now and not kept:
        a search that is cut off here measures again."""
        search, parts = self.search, self.parts
        if not (search.minutes or search.tokens):
            finalists = min(len(prompts), search.keep + 1)
            third = len(prompts) * math.ceil(len(parts.search) / 3)
            return search.evaluations or self._beside(len(prompts), finalists) + finalists * len(parts.select) + third
        longest, sample = max(prompts, key=room.needed), self._of("search")[:TIMED]
        if longest.scoring is not None and longest.scoring.kind == "batch":
            longest = replace(longest, scoring=Scoring("sum"), prior=None)  # It asks the same.
        before, began = self.backend.tokens_used, self._clock()
        try_on(longest, self.backend, sample, self.embed)
        tokens, seconds = self.backend.tokens_used - before, self._clock() - began
        if not tokens:
            raise UserError(
                "what an answer costs cannot be measured, for those asked for are kept from before: limit the search "
                "by evaluations, or give another cache"
            )
        spent, limit = (tokens, search.tokens) if search.tokens else (seconds, 60 * search.minutes - (began - since))
        return int(MARGIN * limit * len(sample) / max(spent, 1e-9))

    def _fitted(self, prompts: list[Artifact], log: JsonLines) -> list[Artifact]:
        """The prompts with the means that batch calibration takes off, as the log has them or learned now."""
        known = {row["number"]: from_dict(Prior, row["prior"]) for row in self._rows if row["event"] == "learned"}
        sample, found = self._of("search")[:LEARNED], []
        for number, prompt in enumerate(prompts):
            if number in known:
                prompt = replace(prompt, prior=known[number])
            before, open_ = self.backend.spent, prompt
            prompt = fitted(prompt, self.backend, sample, self.embed)
            if prompt is not open_:
                log.write(event="learned", number=number, prior=to_dict(prompt.prior), spent=self._note_spent(before))
                log.sync()
            found.append(prompt)
        return found

    def _final(self, number: int, prompt: Artifact, log: JsonLines, right: Sequence[float] = ()) -> list[Finalist]:
        """One of the last prompts as it is, then with every other way to score choices: read once for all of them, or
        as the log has it. right: of a prompt that writes its answers."""
        if not self._scores:
            return [Finalist(prompt, tuple(map(float, right)))]
        if number not in self._finals:
            examples, before = self._of("select"), self.backend.spent
            known = readings(self.backend, self._scores, prompt.template, examples, prompt.chooser(self.embed))
            rows = []
            for score in self._scores:
                own, prior = score is self._scores[0], None
                if isinstance(score, Batch):
                    prior = prompt.prior if own else score.prior(known[score.name])
                choices = chosen(score.values(known[score.name], prior))
                right = [float(choice == one.gold) for choice, one in zip(choices, examples, strict=True)]
                rows.append({"right": right, "prior": prior and to_dict(prior)})
            log.write(event="final", number=number, found=rows, spent=self._note_spent(before))
            log.sync()
            self._finals[number] = rows
            self._advance(len(examples))
        found = []
        for score, row in zip(self._scores, self._finals[number], strict=True):
            if found:
                prior = row["prior"] and from_dict(Prior, row["prior"])
                name = f"{prompt.name}, {score.name}"
                other = replace(prompt, name=name, scoring=Scoring.of(score), prior=prior)
            found.append(Finalist(other if found else prompt, tuple(row["right"])))
        return found

    def _judged(
        self, baseline: Artifact, best: Artifact, finalists: tuple[Finalist, ...], luck: Optimism, evaluations: int
    ) -> Outcome:
        splits = tuple(SplitMark.of(name, self._of(name)) for name in ("search", "select", "test"))
        best = replace(best, model=ModelMark.of(self.backend), splits=splits)
        tokens = best.spent.all_tokens
        if self.matrix.key(best) == self.matrix.key(baseline):
            return Outcome(baseline, best, None, None, None, finalists, luck, evaluations, tokens, 0)
        purpose = f"{self.matrix.key(baseline)} {self.matrix.key(best)}"
        test = self._of("test")
        look = self.looks.take(test, purpose, again=self.again)
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
