"""What scores want to know of many examples, asked of a backend at once, nothing twice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from wenlu.prompting.calibrate import ChoiceScore, Reading, reading
from wenlu.prompting.examples import Example
from wenlu.prompting.rendering import query
from wenlu.prompting.template import Template

if TYPE_CHECKING:
    from wenlu.inference.score import Query, Score
    from wenlu.prompting.backend import Backend, Failed


def readings(
    backend: Backend,
    scores: Sequence[ChoiceScore],
    template: Template,
    examples: Sequence[Example],
    choose: Callable[[Example], Sequence[Example]] | None = None,
) -> dict[str, list[Reading | Failed]]:
    """By the name of each score, what it wants to know of each example (`calibrate.ChoiceScore.values`), or the
    failure that came instead.

    choose: the demonstrations before an example (`Demonstrations.over`). What several scores ask alike (most want the
    prompt itself), or is the same for all examples (a premise), is asked once. Raises UserError for examples without
    choices, and where the backend cannot score.
    """
    numbers: dict[Query, int] = {}
    wanted: dict[str, list[list[int]]] = {score.name: [] for score in scores}
    for example in examples:
        before = tuple(choose(example)) if choose else ()
        for score in scores:
            asked = [query(ask.prompt, ask.continuations, backend) for ask in score.asks(template, example, before)]
            wanted[score.name].append([numbers.setdefault(one, len(numbers)) for one in asked])
    found = backend.score(list(numbers)) if numbers else []
    return {
        name: [_read(template, example, [found[n] for n in row]) for example, row in zip(examples, rows, strict=True)]
        for name, rows in wanted.items()
    }


def _read(template: Template, example: Example, found: list[list[Score] | Failed]) -> Reading | Failed:
    failed = next((one for one in found if not isinstance(one, list)), None)
    return reading(template, example, found) if failed is None else failed
