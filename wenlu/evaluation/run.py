"""A task put to a model: prompts made to fit, answers scored or written, rows kept, figures drawn from them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from wenlu.base.errors import UserError
from wenlu.evaluation.candidate import Candidate
from wenlu.evaluation.fit import Ask, fitted
from wenlu.evaluation.kinds import Choice, Contexts, Pairs, Row, Texts
from wenlu.evaluation.perplexity import Document, evaluate_each
from wenlu.evaluation.results import Results, key_of
from wenlu.evaluation.task import Asked, Settings, Task, asked, refuse_family
from wenlu.evaluation.uncertainty import Uncertainty, uncertainty
from wenlu.evaluation.writing import Writing
from wenlu.inference.score import Pair
from wenlu.metrics.intervals import Estimate
from wenlu.prompting.examples import Example

FORM = 2
"""Of judging: rows that an older wenlu judged otherwise are not mixed with those of now."""
AT_ONCE = 128
"""Examples scored together, after which their rows are kept; what their prompts share is read once."""
BYTES_AT_ONCE = 1 << 14
"""Bytes of whole texts that are read together."""

Advance = Callable[[int], None]
"""Told how many more examples are done."""


@dataclass(frozen=True)
class Outcome:
    """What a model made of a task."""

    task: Task
    model: str
    rows: tuple[Row, ...]
    """One for each example that was asked, in order."""
    groups: tuple[str, ...]
    shots: int
    figures: dict[str, Estimate]
    chance: float | None
    """What guessing gets of the main figure; None where it has no such."""
    parts: dict[str, Estimate]
    """The main figure by the values of the task's part."""
    uncertainty: Uncertainty | None
    notes: tuple[str, ...]
    tokenizer: str = ""
    """Its fingerprint: what is counted in tokens compares only where it is the same."""

    def as_dict(self) -> dict[str, Any]:
        """As JSON holds it, without the rows."""
        found: dict[str, Any] = {"task": self.task.name, "kind": self.task.kind.name, "model": self.model}
        found |= {"examples": len(self.rows), "groups": len(set(self.groups) - {""}) or len(self.rows)}
        found |= {"shots": self.shots, "metric": self.task.kind.metric}
        found["figures"] = {name: estimate.as_dict() for name, estimate in self.figures.items()}
        if self.chance is not None:
            found["chance"] = self.chance
        if self.parts:
            found["parts"] = {name: estimate.as_dict() for name, estimate in self.parts.items()}
        if self.uncertainty is not None:
            found["uncertainty"] = self.uncertainty.as_dict()
        return found | {"notes": list(self.notes)}


@dataclass(frozen=True)
class Plan:
    """What will be asked of a model, with nothing computed yet."""

    asked: Asked
    asks: tuple[tuple[Ask, ...], ...]
    """Of each example, as they will be read."""
    pairs: tuple[tuple[tuple[Pair, ...], ...], ...]
    """The same as tokens, as far as they are kept (`Fitted.pairs`); none of whole texts."""
    keys: tuple[str, ...]
    notes: tuple[str, ...]


def plan(task: Task, candidate: Candidate, settings: Settings) -> Plan:
    """Examples and prompts as the model will read them. Raises UserError for all that can be known beforehand."""
    refuse_family(task, candidate.family)
    chosen = asked(task, settings)
    asks = [chosen.prompts(example) for example in chosen.examples]
    notes, pairs = chosen.notes, []
    if not task.kind.whole_texts:
        flat = [ask for of_example in asks for ask in of_example]
        room = task.kind.max_tokens if isinstance(task.kind, Writing) else 0
        fit = fitted(candidate, flat, task.name, room, settings.cut)
        rest, tokens = iter(fit.asks), iter(fit.pairs)
        asks = [tuple(next(rest) for _ in of_example) for of_example in asks]
        pairs = [tuple(next(tokens) for _ in of_example) for of_example in asks]
        notes += fit.notes(candidate.model.config.context)
    keys = [
        key_of(FORM, candidate.identity, task.kind, of_example, example.gold, example.answers)
        for example, of_example in zip(chosen.examples, asks, strict=True)
    ]
    return Plan(chosen, tuple(asks), tuple(pairs), tuple(keys), notes)


def run_task(
    task: Task,
    candidate: Candidate,
    settings: Settings | None = None,
    results: Results | None = None,
    advance: Advance | None = None,
) -> Outcome:
    """Put a task to a model.

    Rows that `results` holds already are not computed again. Raises UserError for a task that the model cannot do, and
    whatever planning it raises.
    """
    settings = settings or Settings()
    return run_plan(plan(task, candidate, settings), candidate, settings, results or Results(), advance)


def run_plan(
    planned: Plan, candidate: Candidate, settings: Settings, results: Results, advance: Advance | None = None
) -> Outcome:
    """The same for what is planned already."""
    task, advance = planned.asked.task, advance or (lambda _: None)
    model = candidate.identity or candidate.name
    rows: dict[int, Row] = {}
    for number, (example, key) in enumerate(zip(planned.asked.examples, planned.keys, strict=True)):
        if (row := results.find(model, task.name, example.id, key)) is not None:
            rows[number] = row
    advance(len(rows))
    wanted = [number for number in range(len(planned.keys)) if number not in rows]
    ways = {Writing: _written, Texts: _read}
    for number, row in ways.get(type(task.kind), _scored)(planned, candidate, wanted, advance):
        example = planned.asked.examples[number]
        rows[number] = {"model": model, "task": task.name, "id": example.id, "key": planned.keys[number], **row}
        results.add(rows[number])
    return _outcome(planned, candidate, [rows[number] for number in range(len(planned.keys))], settings)


def _scored(planned: Plan, candidate: Candidate, wanted: Sequence[int], advance: Advance) -> Iterator[tuple[int, Row]]:
    """Rows of examples whose texts are scored, many together."""
    task, template = planned.asked.task, planned.asked.template
    for start in range(0, len(wanted), AT_ONCE):
        numbers = wanted[start : start + AT_ONCE]
        scores = iter(candidate.scorer.score_pairs(_pairs(planned, candidate, numbers), len(numbers), advance))
        for number in numbers:
            found = [[next(scores) for _ in continuations] for _, continuations in planned.asks[number]]
            yield number, task.kind.outcome(template, planned.asked.examples[number], found)


def _pairs(planned: Plan, candidate: Candidate, numbers: Sequence[int]) -> list[Pair]:
    """All texts of these examples as tokens: those that planning kept, or encoded anew."""
    kept = [of_ask for number in numbers for of_ask in planned.pairs[number]]
    if all(kept):
        return [pair for of_ask in kept for pair in of_ask]
    return candidate.scorer.pairs([candidate.query(ask) for number in numbers for ask in planned.asks[number]])


def _written(planned: Plan, candidate: Candidate, wanted: Sequence[int], advance: Advance) -> Iterator[tuple[int, Row]]:
    """Rows of examples whose answers are written side by side, each as it ends. Raises UserError, once the others are
    there, where texts have failed."""
    kind, chat = planned.asked.task.kind, planned.asked.chat
    generator = candidate.replier if chat else candidate.generator
    settings = kind.settings(chat=chat)
    waiting, going, failed = list(wanted)[::-1], [], []
    while waiting or going:
        while waiting and len(going) < generator.options.rows:
            number = waiting.pop()
            ((prompt, _),) = planned.asks[number]
            going.append((number, generator.stream(candidate.prompt_ids(prompt), settings)))
        generator.engine.step()
        for number, stream in going:
            stream.pull()
            if stream.error is not None:
                failed.append((number, stream.error))
            elif stream.done:
                yield number, kind.outcome(planned.asked.examples[number], stream.result)
                advance(1)
        going = [pair for pair in going if not pair[1].done]
    _refuse_failed(planned, failed, len(wanted))


def _refuse_failed(planned: Plan, failed: Sequence[tuple[int, Exception]], wanted: int) -> None:
    if failed:
        number, error = failed[0]
        raise UserError(
            f"{len(failed)} of {wanted} texts have failed, the others are done; example "
            f"{planned.asked.examples[number].id}: {error}"
        )


def _read(planned: Plan, candidate: Candidate, wanted: Sequence[int], advance: Advance) -> Iterator[tuple[int, Row]]:
    """Rows of whole texts, each in windows of the model's context, those of short texts side by side. Raises UserError,
    once the others are there, where texts have failed."""
    failed: list[tuple[int, Exception]] = []
    for numbers in _parts_of(wanted, [len(example.fields["text"].encode()) for example in planned.asked.examples]):
        for number, (document, per_token) in _measured(planned, candidate, numbers, failed):
            nats = per_token * len(document.ids)
            scores = {"nats_per_token": per_token}
            if document.lossless:
                scores["bits_per_byte"] = nats / math.log(2) / document.bytes
            yield number, {"scores": scores, "nats": nats, "tokens": len(document.ids), "bytes": document.bytes}
            advance(1)
    _refuse_failed(planned, failed, len(wanted))


def _measured(
    planned: Plan, candidate: Candidate, numbers: list[int], failed: list[tuple[int, Exception]]
) -> list[tuple[int, tuple[Document, float]]]:
    """Texts side by side; where that fails, one by one, so that only those that cannot be measured are missing."""
    texts = [planned.asked.examples[number].fields["text"] for number in numbers]
    try:
        return list(zip(numbers, evaluate_each(candidate.model, candidate.tokenizer, texts), strict=True))
    except UserError as error:
        if len(numbers) > 1:
            return [found for number in numbers for found in _measured(planned, candidate, [number], failed)]
        failed.append((numbers[0], error))
        return []


def _parts_of(wanted: Sequence[int], sizes: Sequence[int]) -> Iterator[list[int]]:
    """Numbers of texts that are read together, `BYTES_AT_ONCE` or the last a little more."""
    part, size = [], 0
    for number in wanted:
        part.append(number)
        size += sizes[number]
        if size >= BYTES_AT_ONCE or len(part) == AT_ONCE:
            yield part
            part, size = [], 0
    if part:
        yield part


def _outcome(planned: Plan, candidate: Candidate, rows: list[Row], settings: Settings) -> Outcome:
    chosen, kind = planned.asked, planned.asked.task.kind
    groups = tuple(example.group for example in chosen.examples)
    notes = planned.notes + (kind.said(rows) if isinstance(kind, Writing) else ())
    chance = unsure = None
    if isinstance(kind, Choice | Contexts | Pairs):
        chance = float(np.mean([1 / len(example.choices) for example in chosen.examples]))
    if isinstance(kind, Choice | Contexts):
        unsure = uncertainty(rows, groups, settings.risk)
    figures = kind.figures(rows, groups)
    if isinstance(kind, Texts) and "bits_per_byte" not in figures:
        notes += ("no bits per byte: the tokenizer does not give back every byte of the texts",)
    parts, without = _parts(chosen.examples, rows, groups, chosen.task)
    if without:
        notes += (f"no {kind.metric} of {', '.join(without)}: the tokenizer does not give back every byte there",)
    return Outcome(
        chosen.task, candidate.name, tuple(rows), groups, len(chosen.shots), figures, chance, parts, unsure, notes,
        candidate.tokenizer.fingerprint,
    )  # fmt: skip


def _parts(
    examples: Sequence[Example], rows: Sequence[Row], groups: Sequence[str], task: Task
) -> tuple[dict[str, Estimate], list[str]]:
    """The main figure of the examples with each value of the task's part, and the values that have none."""
    if not task.part:
        return {}, []
    places: dict[str, list[int]] = {}
    for number, example in enumerate(examples):
        places.setdefault(str(example.fields.get(task.part, "-")), []).append(number)
    found = {
        name: task.kind.figures([rows[n] for n in numbers], [groups[n] for n in numbers])
        for name, numbers in places.items()
    }
    known = {name: figures[task.kind.metric] for name, figures in found.items() if task.kind.metric in figures}
    return known, [name for name in found if name not in known]
