"""A page of what models made of tasks: figures with intervals, plots, and examples; one file, no network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wenlu.base.page import Page, figure
from wenlu.evaluation.compare import Comparison
from wenlu.evaluation.run import Outcome
from wenlu.metrics.calibration import bin_numbers
from wenlu.metrics.intervals import Estimate

EXAMPLES = 5
"""Examples shown of each sort."""
LONGEST = 700
"""Characters of a text that are shown."""
BINS = 10


def figure_rows(outcome: Outcome) -> list[tuple[str, str, str, str]]:
    """(figure, value, interval, chance) of all figures, then of the parts and of what the model knows of itself."""
    chance = "" if outcome.chance is None else f"{outcome.chance:.4f}"
    accuracies = ("acc", "acc_norm", "acc_bytes")
    rows = [(name, *cells(one), chance if name in accuracies else "") for name, one in outcome.figures.items()]
    rows += [(f"  {name}", *cells(one), "") for name, one in outcome.parts.items()]
    if outcome.uncertainty is not None:
        rows += [(name, *cells(one), "") for name, one in outcome.uncertainty.rows()]
    return rows


def cells(estimate: Estimate) -> tuple[str, str]:
    """A figure and its interval as text."""
    ends = estimate.interval
    return _short(estimate.value), f"{_short(ends.low)} to {_short(ends.high)}" if ends else "too few for one"


def _short(value: float) -> str:
    return f"{value:.4f}" if abs(value) < 10_000 else f"{value:,.0f}"


def write(path: Path, outcomes: Sequence[Sequence[Outcome]], comparisons: Sequence[Comparison]) -> None:
    """Write the page: the outcomes of each model, and comparisons of two."""
    models = [of_model[0].model for of_model in outcomes]
    page = Page("Tasks", " and ".join(models))
    header = ("task", "examples", "shots", "figure", "value", "95 % interval", "chance")
    for of_model in outcomes:
        page.heading(f"Figures of {of_model[0].model}")
        page.table(
            [
                (outcome.task.name, f"{len(outcome.rows):,}", outcome.shots, *row)
                for outcome in of_model
                for row in figure_rows(outcome)
            ],
            header,
        )
    if comparisons:
        _compared(page, comparisons)
    for of_model in outcomes:
        for outcome in of_model:
            _task(page, outcome)
    page.save(path)


def _compared(page: Page, comparisons: Sequence[Comparison]) -> None:
    first, second = comparisons[0].models
    page.heading(f"{second} beside {first}")
    rows = [(one.task, name, str(verdict)) for one in comparisons for name, verdict in one.verdicts.items()]
    page.table(rows, ("task", "score", "verdict"))
    for one in comparisons:
        for note in one.notes:
            page.text(f"{one.task}: {note}")
    shown = [(one.task, next(iter(one.verdicts.values()))) for one in comparisons if one.verdicts]
    shown = [(task, verdict.difference) for task, verdict in shown if verdict.difference.interval is not None]
    if shown:
        drawing, axes = figure(8.0, 1.2 + 0.35 * len(shown))
        for place, (_, difference) in enumerate(shown):
            ends = difference.interval
            axes.plot([ends.low, ends.high], [place, place], color="#2b6cb0", linewidth=2)
            axes.plot([difference.value], [place], "o", color="#2b6cb0")
        axes.axvline(0, color="#999", linewidth=1)
        axes.set_yticks(range(len(shown)), [task for task, _ in shown])
        axes.set_xlabel(f"main score: {second} less {first}, 95 % interval")
        page.plot(drawing)


def _task(page: Page, outcome: Outcome) -> None:
    page.heading(f"{outcome.task.name}: {outcome.model}")
    for note in outcome.notes:
        page.text(note)
    if outcome.uncertainty is not None:
        _uncertainty(page, outcome)
    examples = {example.id: example for example in outcome.task.examples}
    main = next(iter(outcome.rows[0]["scores"]))
    order = sorted(outcome.rows, key=lambda row: row["scores"][main])
    sorts = (("lowest", order[:EXAMPLES]), ("highest", order[::-1][:EXAMPLES]))
    for name, rows in sorts:
        page.text(f"Examples with the {name} {main}:")
        page.table(
            [(row["id"], _clipped(_asked(examples[row["id"]].fields)), _clipped(_said(row, outcome))) for row in rows],
            ("example", "asked", "came of it"),
        )


def _asked(fields: Any) -> str:
    return "\n".join(f"{name}: {value}" for name, value in fields.items() if isinstance(value, str) and value)


def _said(row: dict[str, Any], outcome: Outcome) -> str:
    example = next(example for example in outcome.task.examples if example.id == row["id"])
    if "log_probabilities" in row:
        return f"took {example.choices[row['found']]!r}, right is {example.choices[row['gold']]!r}"
    right = f"; right is {example.answers[0]!r}" if example.answers else ""
    if "text" in row:
        return f"wrote {row['text']!r}{right}"
    return ", ".join(f"{name} {value:.4f}" for name, value in row["scores"].items()) + right


def _clipped(text: str) -> str:
    return text if len(text) <= LONGEST else text[:LONGEST] + " …"


def _uncertainty(page: Page, outcome: Outcome) -> None:
    """Accuracy by confidence, and risk by coverage."""
    answers, curve = outcome.uncertainty.answers, outcome.uncertainty.curve
    drawing, axes = figure(6.0, 3.2)
    places = bin_numbers(answers.confidence, BINS, "width")
    sizes = np.bincount(places, minlength=BINS)
    held = sizes > 0
    sums = [np.bincount(places, values, BINS)[held] / sizes[held] for values in (answers.confidence, answers.right)]
    axes.plot([0, 1], [0, 1], color="#999", linewidth=1)
    axes.scatter(*sums, s=12 + 200 * sizes[held] / sizes.sum(), color="#2b6cb0")
    axes.set_xlabel("confidence (probability of the choice among the choices)")
    axes.set_ylabel("part that is right")
    page.plot(drawing)
    drawing, axes = figure(6.0, 3.2)
    axes.plot(curve.coverage, curve.risk, color="#2b6cb0")
    if curve.low is not None:
        axes.fill_between(curve.coverage, curve.low, curve.high, alpha=0.2, color="#2b6cb0")
    axes.set_xlabel("part of questions that is answered, the surest first")
    axes.set_ylabel("part of answers that is wrong")
    page.plot(drawing)
