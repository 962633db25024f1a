"""A search for a better prompt, with a verdict at its end that owes nothing to the search's luck."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wenlu.base.config import from_dict, to_dict
from wenlu.base.errors import UserError
from wenlu.base.log import JsonLines, read_rows, say
from wenlu.metrics.intervals import mean
from wenlu.metrics.verdict import verdict
from wenlu.prompting import artifact as artifacts
from wenlu.prompting.artifact import Artifact, ModelMark, SplitMark
from wenlu.prompting.asking import readings
from wenlu.prompting.backend import Failed, Spent
from wenlu.prompting.calibrate import Batch, Prior, Scoring, chosen
from wenlu.prompting.examples import Example
from wenlu.prompting.matrix import Matrix, complete
from wenlu.prompting.search.limit import LEARNED, MARGIN, Limit
from wenlu.prompting.search.outcome import Finalist, Outcome, Unjudged, Watcher
from wenlu.prompting.search.own import asked_for, own_prompts, refuse_draws
from wenlu.prompting.search.proposals import Recorded, Room, propose, ways_of
from wenlu.prompting.search.select import Ask, Chosen, Selection, Told, choose, optimism
from wenlu.prompting.search.settings import Search, difference
from wenlu.prompting.search.split import Looks, Parts, part
from wenlu.prompting.spending import Tally
from wenlu.prompting.trial import Cell, always, answered, lost

if TYPE_CHECKING:
    from wenlu.prompting.backend import Backend
    from wenlu.prompting.similarity import Embed

FORM = 3
"""Of the log: a search that an older wenlu began is another one."""


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
        refuse_draws(search, self.examples)
        self.parts: Parts = part(self.examples, search.shares)
        self.limit = Limit(search, baseline, self.examples, self.parts)
        self.matrix = Matrix(folder / "matrix.jsonl", backend, self.embed, self._clock)
        self._rows = read_rows(folder / "search.jsonl")
        self._check_same()
        settled = any(row["event"] == "told" and row["told"]["stage"] == "select" for row in self._rows)
        finals = [row for row in self._rows if row["event"] == "final"]
        self._finals = {row["number"]: row["found"] for row in finals if settled or not row.get("failed")}
        self.tally, self.written = Tally(self._clock), Tally(self._clock)
        """Of the model's answers beside the matrix, and of the writer's texts."""
        for row in (row for row in self._rows if row["event"] == "spent"):
            (self.written if row.get("by") == "writer" else self.tally).read(row)

    def run(self) -> Outcome:
        """Search, choose, judge; a search that was cut off goes on where it was.

        Raises Unjudged, with the outcome, where a prompt was chosen and the verdict on it is refused, and UserError
        where another process searches in the folder.
        """
        if any(row["event"] == "chosen" for row in self._rows):
            say(f"{self.folder} holds this search already: what it found is told again; a new one needs another --out")
        elif self._rows:
            say(f"going on with the search in {self.folder}")
        log = JsonLines(self.folder / "search.jsonl")
        try:
            with self.matrix.held():
                return self._run(log)
        finally:
            log.close()

    def _run(self, log: JsonLines) -> Outcome:
        prompts, selection = self._begun(log)
        if self.watcher:
            self.watcher.begin(len(prompts), selection.planned)
        sample = self._of("search")[:LEARNED]
        prompts = [self.matrix.fitted(prompt, sample) for prompt in prompts]
        told = [Told.from_dict(row["told"]) for row in self._rows if row["event"] == "told"]

        def note(answer: Told) -> None:
            log.write(event="told", told=answer.as_dict())
            log.sync()
            self._tell(prompts, answer)

        def score(candidates: Sequence[int], numbers: Sequence[int]) -> np.ndarray:
            wanted = [self.examples[number] for number in numbers]
            if numbers == selection.select and self.limit.scores:
                cells = [self._final(one, prompts[one], log)[0][1] for one in candidates]
            else:
                cells = self.matrix.cells([prompts[one] for one in candidates], wanted, self._advance)
            values, whole = np.array([[cell.value for cell in row] for row in cells]), complete(cells, wanted)
            values[:, [number for number in range(len(wanted)) if number not in whole]] = np.nan
            return values

        going = {row["rungs"] for row in self._rows if row["event"] == "rung"}

        def enough(ask: Ask, told: Sequence[Told]) -> bool:
            if len(told) in going:  # So it was decided, by what was known then.
                return False
            met = self.limit.met(ask, prompts, self.matrix, self.tally, self.written)
            log.write(event="short" if met else "rung", rungs=len(told))
            log.sync()
            return met

        picked = choose(selection, score, told, note, enough)
        finalists, groups = self._finalists(picked, prompts, log)
        rights = np.array([finalist.right for finalist in finalists])
        luck = optimism(rights, groups, seed=self.search.seed)
        chosen = next((row for row in self._rows if row["event"] == "chosen"), None)
        if chosen is None:
            number = int(rights.mean(1).argmax())
            cost = to_dict(self.tally.spent + self.written.spent + self.matrix.tally.spent)
            chosen = {"finalist": number, "name": finalists[number].prompt.name, "before_test": cost}
            log.write(event="chosen", **chosen)
            log.sync()
        best = replace(finalists[chosen["finalist"]].prompt, spent=Spent(**chosen["before_test"]))
        evaluations = picked.evaluations + self.limit.beside(len(prompts), len(picked.finalists))
        tokens, writer = best.spent.all_tokens, self.written.spent.all_tokens
        outcome = Outcome(
            prompts[0], self._marked(best), None, None, None, finalists, luck, evaluations, tokens, writer, 0
        )
        return self._judged(outcome)

    def _check_same(self) -> None:
        if not self._rows:
            return
        begun, now = self._rows[0].get("of"), self._identity()
        if self._rows[0].get("event") != "begin" or begun != now:
            raise UserError(
                f"{self.folder} holds another search ({difference(begun, now)}): give another --out, or go on with the "
                "same ones"
            )

    def _identity(self) -> dict[str, Any]:
        return {
            "form": FORM,
            "search": to_dict(self.search),
            "baseline": self.matrix.key(self.baseline),
            "examples": SplitMark.of("all", self.examples).sha256,
        }

    def _begun(self, log: JsonLines) -> tuple[list[Artifact], Selection]:
        """The candidates and how they are chosen among, as the log has them, or made now and written there."""
        planned = next((row for row in self._rows if "prompts" in row), None)
        if planned is not None:
            prompts = [from_dict(Artifact, one) for one in planned["prompts"]]
            short = next((row["rungs"] for row in self._rows if row["event"] == "short"), None)
            return prompts, self.limit.selection(len(prompts), planned["evaluations"], short)
        if not self._rows:
            log.write(event="begin", of=self._identity())
        since = self._clock()
        pool, room = self._of("search"), Room(self.backend, self.examples, self.embed)
        room.refuse_long(self.baseline)
        wanted, seed = self.search.candidates, self.search.seed
        ways_of(self.baseline, pool[0], self.search.strategies)  # What they refuse is known before the model is asked.
        if self.search.evaluations:
            self.limit.selection(2, self.search.evaluations)
        writer = self.writer and Recorded(self.writer, self._rows, log, self.written)
        ways, own = self.search.strategies, self._own(pool, log)
        prompts = propose(self.baseline, pool, wanted, seed, fits=room, writer=writer, strategies=ways, own=own)
        with self.tally.counted(self.backend, log):
            evaluations = self.limit.evaluations(prompts, room, self.written, since)
        selection = self.limit.selection(len(prompts), evaluations)
        if (self.search.minutes or self.search.tokens) and selection.planned < MARGIN * selection.budget:
            say(
                f"the plan takes {selection.planned:,} of the {evaluations:,} answers that the limit allows: by then "
                f"every prompt that is left has met all {len(pool)} search examples (more --candidates or examples "
                "take more)"
            )
        log.write(event="planned", evaluations=evaluations, prompts=[to_dict(prompt) for prompt in prompts])
        log.sync()
        return prompts, selection

    def _own(self, pool: list[Example], log: JsonLines) -> list[Artifact]:
        """Prompts that the model has a part in making, as the log has them, or asked for now."""
        row = next((row for row in self._rows if row["event"] == "own"), None)
        if row is None and asked_for(self.baseline, self.search, pool):
            with self.tally.counted(self.backend, log):
                found = own_prompts(self.backend, self.baseline, self.search, pool, self.embed)
            row = {"made": [to_dict(prompt) for prompt in found]}
            log.write(event="own", **row)
            log.sync()
        return [from_dict(Artifact, one) for one in row["made"]] if row else []

    def _finalists(
        self, picked: Chosen, prompts: list[Artifact], log: JsonLines
    ) -> tuple[tuple[Finalist, ...], list[str]]:
        """The last prompts as they are, then with the other ways to score choices, on the select examples that they
        were chosen by, and the groups of these: what failed then is not asked again, and changes no choice."""
        whole = np.flatnonzero(~np.isnan(picked.scores).any(0)).tolist()
        asked = [self._of("select")[number] for number in whole]
        if self.limit.scores:
            several = [self._final(number, prompts[number], log) for number in picked.finalists]
            several = [[(prompt, [cells[n] for n in whole]) for prompt, cells in pairs] for pairs in several]
        else:
            last = [prompts[number] for number in picked.finalists]
            several = [[pair] for pair in zip(last, self.matrix.cells(last, asked), strict=True)]
        found = [pairs[0] for pairs in several] + [pair for pairs in several for pair in pairs[1:]]
        finalists = [Finalist(one, tuple(cell.value for cell in own), always(own, asked)) for one, own in found]
        return tuple(finalists), [example.group for example in asked]

    def _final(self, number: int, prompt: Artifact, log: JsonLines) -> list[tuple[Artifact, list[Cell]]]:
        """One of the last prompts as it is, then with every other way to score choices, on the select examples: read
        once for all of them, or as the log has it."""
        examples = self._of("select")
        if number not in self._finals:
            with self.tally.counted(self.backend, log):
                known = readings(self.backend, self.limit.scores, prompt.template, examples, prompt.chooser(self.embed))
            failed = {
                n: str(one) for several in known.values() for n, one in enumerate(several) if isinstance(one, Failed)
            }
            whole, rows = answered(failed, examples), []
            for score in self.limit.scores:
                own, prior, read = score is self.limit.scores[0], None, [known[score.name][n] for n in whole]
                if isinstance(score, Batch):
                    prior = prompt.prior if own else score.prior(read)
                choices = dict(zip(whole, chosen(score.values(read, prior)), strict=True))
                rows.append(
                    {"choices": [choices.get(n) for n in range(len(examples))], "prior": prior and to_dict(prior)}
                )
            log.write(event="final", number=number, found=rows, failed=len(failed))
            log.sync()
            self._finals[number] = rows
            self._advance(len(examples))
        found: list[tuple[Artifact, list[Cell]]] = []
        for score, row in zip(self.limit.scores, self._finals[number], strict=True):
            cells = [
                lost("it failed") if choice is None else Cell(float(choice == one.gold), one.choices[choice])
                for choice, one in zip(row["choices"], examples, strict=True)
            ]
            if found:
                prior = row["prior"] and from_dict(Prior, row["prior"])
                name = f"{prompt.name}, {score.name}"
                prompt_now = replace(prompt, name=name, scoring=Scoring.of(score), prior=prior)
            found.append((prompt_now if found else prompt, cells))
        return found

    def _marked(self, best: Artifact) -> Artifact:
        splits = tuple(SplitMark.of(name, self._of(name)) for name in ("search", "select", "test"))
        return replace(best, model=ModelMark.of(self.backend), splits=splits)

    def _judged(self, outcome: Outcome) -> Outcome:
        """The outcome with its verdict. Raises Unjudged where the test part was looked at, or fails."""
        baseline, best = outcome.baseline, outcome.best
        if self.matrix.key(best) == self.matrix.key(baseline):
            told = next(one.always for one in outcome.finalists if one.prompt.name == baseline.name)
            return replace(outcome, always=() if told is None else ((baseline.name, told),))
        purpose = f"{self.matrix.key(baseline)} {self.matrix.key(best)}"
        test = self._of("test")
        try:
            look = self.looks.take(test, purpose, again=self.again)
            pair = self.matrix.cells([baseline, best], test)
            whole = complete(pair, test)
        except UserError as error:
            raise Unjudged(replace(outcome, unjudged=str(error))) from None
        asked = [test[number] for number in whole]
        cells = [[row[number] for number in whole] for row in pair]
        before, after = ([cell.value for cell in row] for row in cells)
        groups = [example.group for example in asked]
        found = verdict(before, after, groups, self.search.delta)
        of_best = mean(after, groups)
        ends, apart = of_best.interval, found.difference.interval
        noted = artifacts.Verdict(
            str(found), "accuracy", of_best.value, ends and ends.low, ends and ends.high, len(asked),
            baseline.name, found.difference.value, apart and apart.low, apart and apart.high,
        )  # fmt: skip
        told = [(one.name, always(row, asked)) for one, row in zip((baseline, best), cells, strict=True)]
        return replace(
            outcome, best=replace(best, verdict=noted), verdict=found, of_baseline=mean(before, groups),
            of_best=of_best, look=look, always=tuple((name, answer) for name, answer in told if answer is not None),
        )  # fmt: skip

    def _of(self, name: str) -> list[Example]:
        return [self.examples[number] for number in getattr(self.parts, name)]

    def _advance(self, cells: int) -> None:
        if self.watcher:
            self.watcher.advance(cells)

    def _tell(self, prompts: list[Artifact], answer: Told) -> None:
        if self.watcher:
            means = np.nanmean(answer.scores, 1)
            place = int(means.argmax())
            self.watcher.best(prompts[answer.ask.candidates[place]].name, float(means[place]), answer.scores.shape[1])
