"""The limit of a search, in answers, tokens or minutes: planned for beforehand, and looked at before each rung."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from wenlu.base.errors import UserError
from wenlu.base.log import say
from wenlu.prompting.artifact import Artifact
from wenlu.prompting.calibrate import Ask, ChoiceScore, Scoring
from wenlu.prompting.examples import Example
from wenlu.prompting.matrix import Matrix
from wenlu.prompting.search import select
from wenlu.prompting.search.own import asked_for
from wenlu.prompting.search.proposals import Room
from wenlu.prompting.search.select import Selection, TooSmall
from wenlu.prompting.search.settings import Search
from wenlu.prompting.search.split import Parts
from wenlu.prompting.spending import Tally
from wenlu.prompting.trial import try_on

TIMED = 6
"""Examples that the longest prompt's cost is measured on, where a search has minutes or tokens."""
MARGIN = 0.8
"""Part of a limit in minutes or tokens that the search is planned for: some examples cost more than those measured."""
LEARNED = 16
"""Search examples that the mean of a prompt is learned from, where the baseline is scored by batch calibration."""


@dataclass(frozen=True)
class Limit:
    """What a search may ask for. Raises UserError where its limit is too little."""

    search: Search
    baseline: Artifact
    examples: Sequence[Example]
    parts: Parts

    @cached_property
    def scores(self) -> list[ChoiceScore]:
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
        for example in [self.examples[number] for number in self.parts.select] if self.scores else ():
            asks: list[Ask] = []
            for score in self.scores:
                asks += [ask for ask in score.asks(template, example) if ask not in asks]
            own = len(self.scores[0].asks(template, example))
            most = max(most, math.ceil((len(asks) - own) / own))
        return most

    def beside(self, candidates: int, finalists: int) -> int:
        """Answers asked for beside the choosing: for prompts that the model makes, to measure, to learn means, and for
        other ways to score choices."""
        search, scoring = self.search, self.baseline.scoring
        measured = min(TIMED, len(self.parts.search)) if search.minutes or search.tokens else 0
        learning = scoring is not None and scoring.kind == "batch"
        learned = (candidates - (self.baseline.prior is not None)) * min(LEARNED, len(self.parts.search)) * learning
        own = asked_for(self.baseline, search, [self.examples[number] for number in self.parts.search])
        return own + measured + learned + finalists * len(self.parts.select) * self._further

    def selection(self, candidates: int, evaluations: int, rungs: int | None = None) -> Selection:
        """How is chosen among so many candidates; rungs: of the halving, where the limit has ended it."""
        parts, search = self.parts, self.search
        beside = self.beside(candidates, min(candidates, search.keep + 1))
        try:
            return Selection(
                candidates, parts.search, parts.select, evaluations, search.keep, search.seed, beside, rungs
            )
        except TooSmall as error:
            if not (limit := next((name for name in ("minutes", "tokens") if getattr(search, name)), "")):
                raise
            raise UserError(
                f"--{limit} {getattr(search, limit):g} is enough for {max(0, evaluations):,} answers, and "
                f"{candidates} candidates want {error.least:,}: give more, or fewer --candidates"
            ) from None

    def evaluations(self, prompts: Sequence[Artifact], room: Room, writer: Tally, since: float) -> int:
        """The limit in answers; by minutes and tokens as answers to the longest prompt cost, measured now, on examples
        of all lengths, and not kept: a search that is cut off here measures again.

        writer: what a writer has cost, which is taken off; since: when the search began, by its clock.
        """
        search, parts = self.search, self.parts
        if not (search.minutes or search.tokens):
            finalists = min(len(prompts), search.keep + 1)
            third = len(prompts) * math.ceil(len(parts.search) / 3)
            return search.evaluations or self.beside(len(prompts), finalists) + finalists * len(parts.select) + third
        longest = max(prompts, key=room.needed)
        sample = self._of_all_lengths(room.lengths(longest))
        if longest.scoring is not None and longest.scoring.kind == "batch":
            longest = replace(longest, scoring=Scoring("sum"), prior=None)  # It asks the same.
        backend = room.backend
        before, kept, began = backend.tokens_used, backend.tokens_kept, writer.clock()
        try_on(longest, backend, sample, room.embed)
        tokens, seconds = backend.tokens_used - before, writer.clock() - began
        whole = tokens + backend.tokens_kept - kept  # What is kept from a search cut off here costs as much again.
        if not tokens and search.minutes:
            raise UserError(
                "what an answer costs cannot be measured in time, for those asked for are kept from before: limit the "
                "search by --tokens or --evaluations, or give another --endpoint.cache"
            )
        seconds *= whole / max(tokens, 1)
        if search.tokens:
            return int(MARGIN * (search.tokens - writer.spent.all_tokens) * len(sample) / max(whole, 1))
        left = 60 * search.minutes - max(began - since, writer.seconds)
        return int(MARGIN * left * len(sample) / max(seconds, 1e-9))

    def _of_all_lengths(self, lengths: Sequence[int]) -> list[Example]:
        """A few search examples, evenly from the shortest to the longest; lengths: of all examples."""
        order = sorted(self.parts.search, key=lambda number: lengths[number])
        places = {round(turn * (len(order) - 1) / (TIMED - 1)) for turn in range(TIMED)}
        return [self.examples[order[place]] for place in sorted(places)]

    def met(self, ask: select.Ask, prompts: Sequence[Artifact], matrix: Matrix, *beside: Tally) -> bool:
        """Whether the next rung and the select examples would pass the limit, at what an answer has cost so far.

        matrix: holds what is there already; beside: what was spent beside it.
        """
        search = self.search
        if not (search.tokens or search.minutes):
            return False

        def cost(tally: Tally) -> float:
            return tally.spent.all_tokens if search.tokens else tally.seconds

        limit = search.tokens or 60 * search.minutes
        spent, finalists = sum(map(cost, (matrix.tally, *beside))), min(len(prompts), search.keep + 1)
        asked = [self.examples[number] for number in ask.examples]
        rung = sum(len(matrix.missing(prompts[number], asked)) for number in ask.candidates)
        wanted = rung + finalists * len(self.parts.select) * (1 + self._further)
        if spent + cost(matrix.tally) / max(matrix.tried, 1) * wanted <= limit:
            return False
        unit = "tokens" if search.tokens else "seconds"
        say(
            f"{spent:,.0f} of {limit:,.0f} {unit} are spent, which leaves too little for another rung: "
            "going on to the select examples",
            style="yellow",
        )
        return True
